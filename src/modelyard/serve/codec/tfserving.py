"""TensorFlow Serving's REST bodies: rows (`instances`) and columns (`inputs`) to tensors, and back.

Source: TensorFlow Serving, "RESTful API". A tensor `[N, 1]` may be sent as N plain values too. Texts may be
`{"b64": ...}`. JSON knows no NaN: `null` among floats is missing (NaN), and NaN is written as `null`.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import orjson

from modelyard.core.errors import RequestError
from modelyard.core.names import did_you_mean
from modelyard.core.spec import Tensors, TensorSpec
from modelyard.serve.codec.document import read_object
from modelyard.serve.codec.elements import MAX_RANK, check_shape, from_values, to_values

SIGNATURE = "serving_default"

_DTYPES = {"BOOL": "DT_BOOL", "UINT8": "DT_UINT8", "UINT16": "DT_UINT16", "UINT32": "DT_UINT32",
           "UINT64": "DT_UINT64", "INT8": "DT_INT8", "INT16": "DT_INT16", "INT32": "DT_INT32",
           "INT64": "DT_INT64", "FP16": "DT_HALF", "FP32": "DT_FLOAT", "FP64": "DT_DOUBLE",
           "BYTES": "DT_STRING"}  # fmt: skip


class Predict(msgspec.Struct, frozen=True, gc=False):
    """A `:predict` request: a value for each row, or a tensor for each input."""

    field: str
    """`instances` (rows) or `inputs` (columns)."""
    values: Any


class Examples(msgspec.Struct, frozen=True, gc=False):
    """A `:classify` or `:regress` request, its common features laid into every example."""

    rows: list[dict[str, Any]]


def read_predict(body: bytes) -> Predict:
    """Reads a request as far as it needs no model; raises `RequestError` naming the field."""
    head = _head(body, ("instances", "inputs"))
    given = [name for name in ("instances", "inputs") if name in head]
    if len(given) != 1:
        raise RequestError("the data is given twice" if given else "the data is missing",
                           where="instances, inputs", rule="one of the two")  # fmt: skip
    field = given[0]
    values = head[field]
    if field == "instances" and (type(values) is not list or not values):
        raise RequestError("the instances are missing or no list", value=type(values).__name__,
                           where=field, rule="one value or object for each row")  # fmt: skip
    if type(values) not in (list, dict) or not values:
        raise RequestError("the inputs are missing or neither a list nor an object", where=field,
                           value=type(values).__name__, rule="a tensor, or one for each input")  # fmt: skip
    return Predict(field, values)


def read_examples(body: bytes, *, limit: int) -> Examples:
    """Reads a `:classify` or `:regress` request of at most `limit` examples."""
    head = _head(body, ("examples", "context"))
    listed, context = head.get("examples"), head.get("context", {})
    if type(listed) is not list or not listed:
        raise RequestError("the examples are missing or no list", value=type(listed).__name__,
                           where="examples", rule="one object for each row")  # fmt: skip
    if len(listed) > limit:
        raise RequestError("there are too many examples", value=len(listed), status=413, where="examples",
                           rule=f"at most {limit}")  # fmt: skip
    if type(context) is not dict:
        raise RequestError("the context is no object", value=type(context).__name__, where="context")
    for index, example in enumerate(listed):
        if type(example) is not dict:
            raise RequestError("the example is no object", value=type(example).__name__,
                               where=f"examples[{index}]")  # fmt: skip
    return Examples([{**context, **example} for example in listed])


def tensors_of(
    predict: Predict, specs: Sequence[TensorSpec], *, elements: int, rows: int
) -> tuple[Tensors, int]:
    """The model's inputs and their number of items; raises `RequestError` naming the field."""
    columns = _columns(predict, specs)
    inputs: Tensors = {}
    items = -1
    for spec in specs:
        where = f"{predict.field} ({spec.name!r})"
        data = columns[spec.name]
        if type(data) is not list or not data:
            raise RequestError("the tensor is missing or no list", value=_kind(data), where=where,
                               rule="a list with one value for each row")  # fmt: skip
        if items not in (-1, len(data)):
            raise RequestError("the inputs differ in their number of items", value=len(data), where=where,
                               rule=f"{items} as the first input has")  # fmt: skip
        items = len(data)
        if items > rows:
            raise RequestError("there are too many rows", value=items, status=413, where=where,
                               rule=f"at most {rows}")  # fmt: skip
        if spec.datatype == "BYTES":
            data = _texts(data, where, 0)
        shape, count = check_shape([items, *_tail(data, spec)], elements, where)
        inputs[spec.name] = from_values(data, spec.datatype, shape, count, where)
    return inputs, items


def write_predict(field: str, outputs: Tensors) -> bytes:
    """The answer in the format of the request: `predictions` by row, or `outputs` by tensor."""
    written = {name: _written(values) for name, values in outputs.items()}
    only = next(iter(written.values())) if len(written) == 1 else None
    if field == "inputs":
        answer: dict[str, Any] = {"outputs": written if only is None else only}
    elif only is not None:
        answer = {"predictions": only}
    else:
        count = len(next(iter(written.values())))
        answer = {"predictions": [{name: values[row] for name, values in written.items()}
                                  for row in range(count)]}  # fmt: skip
    return orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)


def write_classify(probabilities: np.ndarray, labels: tuple[str, ...]) -> bytes:
    """Each row's labels with their probabilities, in the order of the labels."""
    rows = [list(zip(labels, row, strict=True)) for row in probabilities.tolist()]
    return orjson.dumps({"results": rows})


def write_regress(prediction: np.ndarray) -> bytes:
    """Each row's value."""
    return orjson.dumps({"results": prediction.astype(np.float64).reshape(-1).tolist()})


def write_status(versions: Sequence[str]) -> bytes:
    """The state of a model's versions."""
    status = {"error_code": "OK", "error_message": ""}
    listed = [{"version": version, "state": "AVAILABLE", "status": status} for version in versions]
    return orjson.dumps({"model_version_status": listed})


def write_metadata(
    name: str, version: str, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]
) -> bytes:
    """A model's signature, as TensorFlow Serving describes it."""
    signature = {
        "inputs": {spec.name: _described(spec) for spec in inputs},
        "outputs": {spec.name: _described(spec) for spec in outputs},
        "method_name": "tensorflow/serving/predict",
    }
    return orjson.dumps({
        "model_spec": {"name": name, "signature_name": "", "version": version},
        "metadata": {"signature_def": {"signature_def": {SIGNATURE: signature}}},
    })  # fmt: skip


def _head(body: bytes, fields: tuple[str, ...]) -> dict[str, Any]:
    head = read_object(body)
    for name in head:
        if name != "signature_name" and name not in fields:
            raise RequestError("the request has a field that is not known", value=name[:64], where="body",
                               fix=did_you_mean(name, ("signature_name", *fields)))  # fmt: skip
    signature = head.get("signature_name", "")
    if signature not in ("", SIGNATURE):
        raise RequestError("there is no such signature", value=signature, where="signature_name",
                           rule=f"{SIGNATURE}, or nothing")  # fmt: skip
    return head


def _columns(predict: Predict, specs: Sequence[TensorSpec]) -> dict[str, Any]:
    """The data of each input, still as JSON values."""
    values, field = predict.values, predict.field
    names = [spec.name for spec in specs]
    if field == "instances" and all(type(row) is dict and "b64" not in row for row in values):
        for index, row in enumerate(values):
            _check_names(row, names, f"instances[{index}]")
        return {name: [row[name] for row in values] for name in names}
    if type(values) is dict and not (len(names) == 1 and "b64" in values):
        _check_names(values, names, field)
        return values
    if len(names) > 1:
        raise RequestError("the model has several inputs", where=field,
                           rule="an object with one value for each of " + ", ".join(names[:10]))  # fmt: skip
    return {names[0]: values}


def _check_names(given: dict[str, Any], names: list[str], where: str) -> None:
    for name in names:
        if name not in given:
            raise RequestError("an input is missing", value=name, where=where)
    if len(given) != len(names):
        name = next(name for name in given if name not in names)
        raise RequestError("the model has no such input", value=name[:64], where=where,
                           fix=did_you_mean(name, names))  # fmt: skip


def _tail(data: list[Any], spec: TensorSpec) -> list[int]:
    """The shape of one item: as the model says, and as the data is nested where it leaves that open."""
    tail = list(spec.shape[1:])
    value: Any = data[0]
    for place, size in enumerate(tail):
        if size < 0:
            tail[place] = len(value) if type(value) is list else 0
        value = value[0] if type(value) is list and value else None
    return tail


def _texts(value: Any, where: str, depth: int) -> Any:
    if type(value) is list and depth < MAX_RANK:
        return [_texts(item, where, depth + 1) for item in value]
    if type(value) is not dict:
        return value
    coded = value.get("b64")
    if type(coded) is not str or len(value) != 1:
        raise RequestError("the value is no text", value=_kind(value), where=where,
                           rule='a text, or {"b64": text}')  # fmt: skip
    try:
        return base64.b64decode(coded, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError, ValueError):
        raise RequestError("the value is no text in base64", value=coded[:64], where=f"{where}.b64",
                           rule="base64 of UTF-8") from None  # fmt: skip


def _written(values: np.ndarray) -> Any:
    if values.dtype == object:
        return values.tolist()
    flat = to_values(values)
    return np.ascontiguousarray(flat.reshape(values.shape))


def _described(spec: TensorSpec) -> dict[str, Any]:
    dimensions = [{"size": str(size), "name": ""} for size in spec.shape]
    return {"dtype": _DTYPES[spec.datatype], "name": f"{spec.name}:0",
            "tensor_shape": {"dim": dimensions, "unknown_rank": False}}  # fmt: skip


def _kind(value: object) -> str | None:
    return None if value is None else type(value).__name__
