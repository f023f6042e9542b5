"""Bytes of a gRPC message to an inference request, and an answer to bytes, without a gRPC engine."""

from __future__ import annotations

from typing import Any

import numpy as np

from modelyard.core.errors import RequestError
from modelyard.core.require import require
from modelyard.core.spec import DATATYPES, Tensors, numpy_type
from modelyard.serve.codec.elements import check_datatype, check_shape, from_bytes, from_values
from modelyard.serve.codec.inference import MAX_TENSORS, read_id
from modelyard.serve.grpc.messages import CONTENTS, messages
from modelyard.serve.grpc.plain import InferAsked, PlainWriter

MAX_FIELDS = 8 * MAX_TENSORS
"""Fields of one message, outside of tensors' contents: each costs more memory than it has bytes."""

_SMALL = 16 << 10
_DATATYPES = {numpy_type(name): name for name in DATATYPES}
_SEQUENCE = ("sequence_id", "sequence_start", "sequence_end")
_NESTED = (4, 5, 6)
_CUT = "the message is cut short, or no message"


def read_message(kind: str, data: bytes) -> Any:
    """A message of that kind; raises `RequestError` when the bytes are none."""
    try:
        return messages()[kind].FromString(data)
    except require("google.protobuf.message", extra="grpc").DecodeError as error:
        raise RequestError("the message cannot be read", value=str(error)[:120], where="message",
                           rule=f"inference.{kind}, texts in UTF-8") from None  # fmt: skip


def read_infer(data: bytes, *, elements: int, rows: int) -> InferAsked:
    """Reads a `ModelInferRequest`; `elements` bounds one tensor, `rows` the items.

    Raises `RequestError` naming the field.
    """
    if len(data) > _SMALL:
        _count_fields(data)
    message = read_message("ModelInferRequest", data)
    if not message.model_name:
        raise RequestError("the model's name is missing", where="model_name")
    listed, raws = message.inputs, message.raw_input_contents
    if not 1 <= len(listed) <= MAX_TENSORS:
        raise RequestError("the number of inputs is wrong", value=len(listed), where="inputs",
                           rule=f"1 to {MAX_TENSORS}")  # fmt: skip
    if raws and len(raws) != len(listed):
        raise RequestError("the raw contents are not one for each input", value=len(raws),
                           where="raw_input_contents", rule=str(len(listed)))  # fmt: skip
    inputs: Tensors = {}
    items = -1
    for index, tensor in enumerate(listed):
        name = tensor.name
        if not name:
            raise RequestError("the input's name is missing", where=f"inputs[{index}].name")
        where = f"inputs[{index}] ({name[:64]!r})"
        if name in inputs:
            raise RequestError("the input is given twice", where=where, rule="each name once")
        _refuse_regions(tensor, where)
        datatype = check_datatype(tensor.datatype, where)
        shape, count = check_shape(list(tensor.shape), elements, where)
        if items not in (-1, shape[0]):
            raise RequestError("the inputs differ in their number of items", value=shape[0],
                               where=f"{where}.shape", rule=f"{items} as the first input has")  # fmt: skip
        if not 1 <= shape[0] <= rows:
            raise RequestError("the number of items is wrong", value=shape[0], where=f"{where}.shape",
                               rule=f"1 to {rows}")  # fmt: skip
        items = shape[0]
        if raws:
            if tensor.HasField("contents"):
                raise RequestError("the data is given twice", where=where,
                                   rule="contents or raw_input_contents, not both")  # fmt: skip
            raw = memoryview(raws[index])
            inputs[name] = from_bytes(
                raw, datatype, shape, count, f"raw_input_contents[{index}] ({name[:64]!r})"
            )
        else:
            inputs[name] = _typed(tensor.contents, datatype, shape, count, where)
    identity = read_id(message.id)
    _refuse_sequences(message)
    return InferAsked(
        message.model_name,
        message.model_version,
        identity,
        _key(message) or identity,
        inputs,
        items,
        _outputs(message.outputs),
        bool(raws),
        _timeout(message),
    )


def write_infer(
    endpoint: str,
    version: str,
    identity: str,
    outputs: Tensors,
    *,
    wanted: tuple[str, ...] = (),
    raw: bool,
) -> bytes:
    """A `ModelInferResponse`; contents are raw, or typed where every output's datatype can be."""
    chosen = {name: outputs[name] for name in wanted or outputs}
    if raw or any(values.dtype == np.float16 for values in chosen.values()):
        return PlainWriter(endpoint, version).write(identity, chosen)
    answer = messages()["ModelInferResponse"](model_name=endpoint, model_version=version, id=identity)
    for name, values in chosen.items():
        datatype = _DATATYPES[values.dtype]
        tensor = answer.outputs.add(name=name, datatype=datatype, shape=values.shape)
        flat = values.ravel().tolist()
        listed = [str(item).encode("utf-8", "replace") for item in flat] if datatype == "BYTES" else flat
        getattr(tensor.contents, CONTENTS[datatype]).extend(listed)
    written: bytes = answer.SerializeToString()
    return written


def _typed(contents: Any, datatype: str, shape: tuple[int, ...], count: int, where: str) -> Any:
    field = CONTENTS.get(datatype)
    if field is None:
        raise RequestError("the datatype has no typed contents", value=datatype, where=f"{where}.datatype",
                           fix="send it in raw_input_contents")  # fmt: skip
    for other in contents.ListFields():
        if other[0].name != field:
            raise RequestError("the contents are in the field of another datatype",
                               where=f"{where}.contents.{other[0].name}",
                               rule=f"{field} for {datatype}")  # fmt: skip
    listed = getattr(contents, field)
    if datatype in ("FP32", "FP64") and len(listed) == count:
        # The message's own types: nothing is left to check but their number.
        return np.array(listed, dtype=numpy_type(datatype)).reshape(shape)
    values: list[Any] = list(listed)
    if datatype == "BYTES":
        values = [_text(item, index, where) for index, item in enumerate(values)]
    return from_values(values, datatype, shape, count, f"{where}.contents")


def _text(item: bytes, index: int, where: str) -> str:
    try:
        return item.decode()
    except UnicodeDecodeError:
        raise RequestError(f"text {index} is not UTF-8", where=f"{where}.contents.bytes_contents",
                           rule="BYTES are texts in UTF-8") from None  # fmt: skip


def _outputs(listed: Any) -> tuple[str, ...]:
    if len(listed) > MAX_TENSORS:
        raise RequestError("there are too many outputs", value=len(listed), where="outputs",
                           rule=f"at most {MAX_TENSORS}")  # fmt: skip
    wanted: dict[str, None] = {}
    for index, item in enumerate(listed):
        if not item.name:
            raise RequestError("the output's name is missing", where=f"outputs[{index}].name")
        if item.name in wanted:
            raise RequestError("the output is asked for twice", value=item.name, where=f"outputs[{index}]")
        if "classification" in item.parameters:
            raise RequestError("the classification extension is not supported",
                               where=f"outputs[{index}].parameters.classification",
                               fix="ask for the probabilities")  # fmt: skip
        wanted[item.name] = None
    return tuple(wanted)


def _refuse_regions(tensor: Any, where: str) -> None:
    if "shared_memory_region" in tensor.parameters:
        raise RequestError("shared memory is not served", where=f"{where}.parameters",
                           fix="send the data in the message")  # fmt: skip


def _refuse_sequences(message: Any) -> None:
    for name in _SEQUENCE:
        if name in message.parameters:
            parameter = message.parameters[name]
            kind = parameter.WhichOneof("parameter_choice")
            if kind is not None and getattr(parameter, kind):
                raise RequestError("models with a state between requests are not served",
                                   where=f"parameters.{name}", fix="leave it out")  # fmt: skip


def _key(message: Any) -> str:
    if "key" not in message.parameters:
        return ""
    parameter = message.parameters["key"]
    if parameter.WhichOneof("parameter_choice") != "string_param":
        raise RequestError("the routing key is no text", where="parameters.key", rule="string_param")
    return str(parameter.string_param)


def _timeout(message: Any) -> float | None:
    if "timeout" not in message.parameters:
        return None
    parameter = message.parameters["timeout"]
    kind = parameter.WhichOneof("parameter_choice")
    value = getattr(parameter, kind) if kind in ("int64_param", "uint64_param") else -1
    if value < 0:
        raise RequestError("the timeout is wrong", value=kind if value == -1 else value,
                           where="parameters.timeout", rule="int64_param: microseconds, 0: none")  # fmt: skip
    return value / 1e6 if value else None


def _count_fields(data: bytes) -> None:
    """Refuses a message of very many small parts before they are taken apart into objects."""
    left = MAX_FIELDS
    ranges = [(0, len(data), 0)]
    while ranges:
        at, end, depth = ranges.pop()
        while at < end:
            left -= 1
            if left < 0:
                raise RequestError("the message has too many parts", where="message", status=413,
                                   rule=f"at most {MAX_FIELDS} fields")  # fmt: skip
            tag, at = _varint(data, at, end)
            field, wire = tag >> 3, tag & 7
            if wire == 0:
                _, at = _varint(data, at, end)
            elif wire == 2:
                size, at = _varint(data, at, end)
                if size > end - at:
                    raise RequestError(_CUT, value=size, where=f"field {field}",
                                       rule=f"at most the {end - at} bytes that are left")  # fmt: skip
                # Inputs hold parameters, whose number no element count bounds; contents are only elements.
                if depth == 0 and field in _NESTED:
                    ranges.append((at, at + size, 1))
                at += size
            elif wire in (1, 5):
                at += 8 if wire == 1 else 4
            else:
                raise RequestError(_CUT, value=wire, where=f"field {field}", rule="wire type 0, 1, 2 or 5")


def _varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while at < end and shift < 64:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
    raise RequestError(_CUT, where="message")
