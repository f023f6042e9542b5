"""JSON Schemas (2020-12) of a contract's columns and of a model's tensors, as the codecs accept them."""

from __future__ import annotations

from typing import Any

import numpy as np

from modelyard.core.spec import TensorSpec, numpy_type
from modelyard.data.contract import Column

_LARGEST = float(np.finfo(np.float32).max)


def column_schema(column: Column) -> dict[str, Any]:
    """What a row may hold for a feature.

    >>> column_schema(Column("age", "number", minimum=0, missing_max=0.1))["anyOf"][0]["type"]
    'number'
    """
    schema = _value(column)
    about = column.description
    if column.minimum is not None or column.maximum is not None:
        low = "" if column.minimum is None else f"{column.minimum:g}"
        high = "" if column.maximum is None else f"{column.maximum:g}"
        about = " ".join(filter(None, (about, f"Expected: {low} to {high}.")))
    if about:
        schema["description"] = about
    if column.missing_max == 0:
        return schema
    return {"anyOf": [schema, {"type": "null"}]}


def tensor_schema(spec: TensorSpec) -> dict[str, Any]:
    """What the protocol takes for one input: its name, datatype, shape and data in JSON or behind it."""
    sizes = [{"type": "integer", "minimum": 1} if size < 0 else {"const": size} for size in spec.shape]
    element = _ELEMENTS.get(spec.datatype) or _number(spec.datatype)
    return {
        "type": "object",
        "required": ["name", "datatype", "shape"],
        "properties": {
            "name": {"const": spec.name},
            "datatype": {"const": spec.datatype},
            "shape": {"type": "array", "minItems": len(sizes), "maxItems": len(sizes), "prefixItems": sizes},
            "data": {"type": "array", "description": "flat, or nested as the shape says",
                     "items": {"anyOf": [element, {"type": "array"}]}},
            "parameters": {"type": "object", "properties": {
                "binary_data_size": {"type": "integer", "minimum": 0}}},
        },
    }  # fmt: skip


_ELEMENTS: dict[str, dict[str, Any]] = {
    "BYTES": {"type": ["string", "null"]},
    "BOOL": {"type": "boolean"},
}


def _number(datatype: str) -> dict[str, Any]:
    dtype = numpy_type(datatype)
    if dtype.kind == "f":
        return {"type": ["number", "null"]}
    limits = np.iinfo(dtype)
    return {"type": "integer", "minimum": int(limits.min), "maximum": int(limits.max)}


def _value(column: Column) -> dict[str, Any]:
    match column.kind:
        case "number":
            return {"type": "number", "minimum": -_LARGEST, "maximum": _LARGEST}
        case "integer":
            return {"type": "integer", "minimum": -_LARGEST, "maximum": _LARGEST}
        case "boolean":
            return {"enum": [True, False, 0, 1]}
        case "category":
            text: dict[str, Any] = (
                {"type": "string"} if column.missing_max else {"type": "string", "minLength": 1}
            )
            examples = list(column.categories or ())[:8]
            return {"anyOf": [text, {"type": ["number", "boolean"]}], "examples": examples}
        case "text":
            return {"type": "string"} if column.missing_max else {"type": "string", "minLength": 1}
        case _:
            return _nested(column)


def _nested(column: Column) -> dict[str, Any]:
    datatype = column.datatype or "FP32"
    dtype = numpy_type(datatype)
    if dtype.kind == "b":
        schema: dict[str, Any] = {"enum": [True, False, 0, 1]}
    elif dtype.kind == "f":
        largest = float(np.finfo(dtype).max)
        schema = {"type": ["number", "boolean"], "minimum": -largest, "maximum": largest}
    else:
        limits = np.iinfo(dtype)
        schema = {"type": ["integer", "boolean"], "minimum": int(limits.min), "maximum": int(limits.max)}
    for size in reversed(column.shape or ()):
        schema = {"type": "array", "minItems": size, "maxItems": size, "items": schema}
    return schema
