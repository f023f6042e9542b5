"""Open Inference Protocol v2, REST: JSON, and the binary tensor data extension in both directions.

Source: https://github.com/kserve/open-inference-protocol and Triton's `extension_binary_data.md`.
JSON knows no NaN: `null` among floats is read as missing (NaN), and the `NaN` and `Infinity` that Python
clients write are understood; NaN and infinities are written as `null`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import orjson

from modelyard.core.errors import RequestError
from modelyard.core.spec import DATATYPES, Tensors, TensorSpec, datatype_of, numpy_type
from modelyard.serve.codec.document import check_keys, keys_of, kind_of, load
from modelyard.serve.codec.elements import (
    check_datatype,
    check_shape,
    from_bytes,
    from_values,
    plain_numbers,
    to_bytes,
    to_values,
)

MAX_TENSORS = 1_024
MAX_ID = 256

_LONGEST = 86_400_000_000
_SEQUENCE = ("sequence_id", "sequence_start", "sequence_end")
_DATATYPES = {numpy_type(name): name for name in DATATYPES}


class Wanted(msgspec.Struct, frozen=True, gc=False):
    """One requested output, and whether its data is to come as raw bytes."""

    name: str
    binary: bool


class Asked(msgspec.Struct, frozen=True, gc=False):
    """An inference request. `outputs` is `None` when all are wanted, then `binary` says how."""

    id: str
    inputs: Tensors
    rows: int
    outputs: tuple[Wanted, ...] | None
    binary: bool
    key: str
    """What routing sticks to: the request's parameter `key`, else its id."""
    timeout: float | None = None
    """Seconds after which the client wants no answer any more: the parameter `timeout`, there in us."""


def read_request(
    body: bytes,
    header_length: int | None,
    *,
    elements: int,
    rows: int,
    admit: Callable[[float | None], None] | None = None,
) -> Asked:
    """Reads a request; `header_length` is the length of its JSON part when raw bytes follow.

    `elements` bounds one tensor, `rows` the items. `admit` is given the timeout, in seconds, before the
    tensors are read, and raises to have it left at that. Raises `RequestError` naming the field.
    """
    view = memoryview(body)
    if header_length is not None and not 0 <= header_length <= len(body):
        raise RequestError(
            "the JSON part is longer than the body",
            value=header_length,
            where="Inference-Header-Content-Length",
            rule=f"0 to {len(body)}",
        )
    text = body if header_length is None else body[:header_length]
    head = load(text)
    listed = head.get("inputs")
    if type(listed) is not list or not 1 <= len(listed) <= MAX_TENSORS:
        raise RequestError("the request has no inputs", where="inputs", value=kind_of(listed),
                           rule=f"a list of 1 to {MAX_TENSORS} tensors")  # fmt: skip
    if admit is not None:
        admit(read_timeout(_parameters(head, "parameters").get("timeout")))
    at = len(body) if header_length is None else header_length
    inputs: Tensors = {}
    items = -1
    keys = len(head)
    for index, tensor in enumerate(listed):
        if type(tensor) is dict and "parameters" not in tensor:
            keys += len(tensor)
            values = plain_numbers(tensor.get("data"), tensor.get("datatype"), tensor.get("shape"))
            name = tensor.get("name")
            if (
                values is not None
                and values.size <= elements
                and type(name) is str
                and name
                and name not in inputs
                and items in (-1, len(values))
                and len(values) <= rows
            ):
                inputs[name] = values
                items = len(values)
                continue
        at, items = _input(tensor, index, inputs, view, at, items=items, elements=elements, rows=rows)
    if at != len(body):
        raise RequestError("bytes are left over behind the last tensor", value=len(body) - at, where="body",
                           rule="the sum of all binary_data_size")  # fmt: skip
    identity = read_id(head.get("id"))
    if len(head) == 1 + ("id" in head) and at == len(text):
        check_keys(text, head, keys)
        return Asked(identity, inputs, items, None, False, identity)
    check_keys(text, head, keys_of(head))
    parameters = _parameters(head, "parameters")
    for name in _SEQUENCE:
        if parameters.get(name):
            raise RequestError("models with a state between requests are not served", value=parameters[name],
                               where=f"parameters.{name}", fix="leave it out")  # fmt: skip
    binary = _flag(parameters, "binary_data_output", "parameters", False)
    key = parameters.get("key")
    if key is not None and type(key) is not str:
        raise RequestError("the routing key is no text", value=key, where="parameters.key")
    outputs = head.get("outputs")
    return Asked(
        identity,
        inputs,
        items,
        None if outputs is None else _outputs(outputs, binary),
        binary,
        key or identity,
        read_timeout(parameters.get("timeout")),
    )


def read_id(value: object) -> str:
    """A client's id for a request, empty when there is none."""
    if value is None:
        return ""
    if type(value) is not str or len(value) > MAX_ID:
        raise RequestError(
            "the id is wrong", value=value, where="id", rule=f"a text of at most {MAX_ID} characters"
        )
    return value


def write_answer(
    endpoint: str,
    version: str,
    identity: str,
    outputs: Tensors,
    *,
    wanted: tuple[Wanted, ...] | None = None,
    binary: bool = False,
) -> tuple[bytes, int | None]:
    """The body of an answer, and the length of its JSON part when raw bytes follow it."""
    described = []
    raw = []
    for name, as_bytes in (
        [(item.name, item.binary) for item in wanted]
        if wanted is not None
        else [(n, binary) for n in outputs]
    ):
        values = outputs[name]
        tensor: dict[str, Any] = {
            "name": name,
            "datatype": _DATATYPES.get(values.dtype) or datatype_of(values.dtype),
            "shape": values.shape,
        }
        if as_bytes:
            data = to_bytes(values)
            raw.append(data)
            tensor["parameters"] = {"binary_data_size": len(data)}
        else:
            tensor["data"] = to_values(values)
        described.append(tensor)
    head = orjson.dumps(
        {"model_name": endpoint, "model_version": version, "id": identity, "outputs": described},
        option=orjson.OPT_SERIALIZE_NUMPY,
    )
    return (b"".join((head, *raw)), len(head)) if raw else (head, None)


def write_metadata(
    endpoint: str,
    versions: list[str],
    platform: str,
    inputs: tuple[TensorSpec, ...],
    outputs: tuple[TensorSpec, ...],
) -> bytes:
    """The protocol's model metadata."""
    return orjson.dumps(
        {
            "name": endpoint,
            "versions": versions,
            "platform": platform,
            "inputs": [spec.to_json() for spec in inputs],
            "outputs": [spec.to_json() for spec in outputs],
        }
    )


def write_error(error: RequestError) -> bytes:
    """The protocol's error object."""
    return orjson.dumps({"error": str(error).encode("utf-8", "replace").decode()})


def _input(
    tensor: object,
    index: int,
    inputs: Tensors,
    body: memoryview,
    at: int,
    *,
    items: int,
    elements: int,
    rows: int,
) -> tuple[int, int]:
    """Reads one input tensor into `inputs`; where the next one's raw bytes begin, and the number of items."""
    if type(tensor) is not dict:
        raise RequestError("the input is no object", value=kind_of(tensor), where=f"inputs[{index}]")
    name = tensor.get("name")
    if type(name) is not str or not name:
        raise RequestError(
            "the input's name is missing or no text", value=name, where=f"inputs[{index}].name"
        )
    where = f"inputs[{index}] ({name[:64]!r})"
    if name in inputs:
        raise RequestError("the input is given twice", where=where, rule="each name once")
    datatype = check_datatype(tensor.get("datatype"), where)
    shape, count = check_shape(tensor.get("shape"), elements, where)
    if items not in (-1, shape[0]):
        raise RequestError("the inputs differ in their number of items", value=shape[0],
                           where=f"{where}.shape", rule=f"{items} as the first input has")  # fmt: skip
    if not 1 <= shape[0] <= rows:
        raise RequestError("the number of items is wrong", value=shape[0], where=f"{where}.shape",
                           rule=f"1 to {rows}")  # fmt: skip
    size = (
        _parameters(tensor, f"{where}.parameters").get("binary_data_size") if "parameters" in tensor else None
    )
    if size is None:
        inputs[name] = from_values(tensor.get("data"), datatype, shape, count, where)
        return at, shape[0]
    if "data" in tensor:
        raise RequestError("the data is given twice", where=where, rule="data or binary_data_size, not both")
    if type(size) is not int or not 0 <= size <= len(body) - at:
        raise RequestError("the binary data is not in the body", value=size,
                           rule=f"0 to {len(body) - at} bytes",
                           where=f"{where}.parameters.binary_data_size")  # fmt: skip
    inputs[name] = from_bytes(body[at : at + size], datatype, shape, count, where)
    return at + size, shape[0]


def _outputs(listed: object, binary: bool) -> tuple[Wanted, ...] | None:
    if type(listed) is not list or len(listed) > MAX_TENSORS:
        raise RequestError("the outputs are no list", value=kind_of(listed), where="outputs")
    wanted: dict[str, Wanted] = {}
    for index, item in enumerate(listed):
        name = item.get("name") if type(item) is dict else None
        if type(name) is not str or not name:
            raise RequestError(
                "the output's name is missing or no text", value=name, where=f"outputs[{index}].name"
            )
        if name in wanted:
            raise RequestError("the output is asked for twice", value=name, where=f"outputs[{index}]")
        parameters = _parameters(item, f"outputs[{index}].parameters")
        if "classification" in parameters:
            raise RequestError(
                "the classification extension is not supported",
                where=f"outputs[{index}].parameters.classification",
                fix="ask for the probabilities, or use plain rows for labels",
            )
        wanted[name] = Wanted(name, _flag(parameters, "binary_data", f"outputs[{index}].parameters", binary))
    # An empty list asks for nothing in particular, which the protocol reads as everything.
    return tuple(wanted.values()) or None


def _parameters(holder: dict[str, Any], where: str) -> dict[str, Any]:
    value = holder.get("parameters")
    if value is None:
        return {}
    if type(value) is not dict:
        raise RequestError("the parameters are no object", value=kind_of(value), where=where)
    return value


def _flag(parameters: dict[str, Any], name: str, where: str, default: bool) -> bool:
    value = parameters.get(name, default)
    if value is True or value is False:
        return bool(value)
    raise RequestError("the parameter is neither true nor false", value=value, where=f"{where}.{name}")


def read_timeout(value: object) -> float | None:
    """The protocol's timeout, in microseconds; 0 is none, as it is for Triton."""
    if value is None or (type(value) is int and value == 0):
        return None
    if type(value) is int and 0 < value <= _LONGEST:
        return value * 1e-6
    raise RequestError("the timeout is wrong", value=value, where="parameters.timeout",
                       rule=f"microseconds, a whole number up to {_LONGEST}")  # fmt: skip
