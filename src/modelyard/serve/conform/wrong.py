"""Wrong requests, each wrong in one way, derived from a model's valid one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from modelyard.serve.conform.case import Level, skip
from modelyard.serve.conform.exchange import Request
from modelyard.serve.conform.message import body_of, described, infer_json, path_of, sample
from modelyard.serve.conform.model import ModelInfo

_DEEP = 50_000
_HUGE = 1 << 32

Objects = list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Wrong:
    """A way to be wrong: what is wrong, and the request; `make` may skip where it cannot be made."""

    id: str
    title: str
    section: str
    level: Level
    make: Callable[[ModelInfo], Request]


def _changed(change: Callable[[ModelInfo, Objects], None]) -> Callable[[ModelInfo], Request]:
    """A request whose list of inputs was changed."""

    def make(model: ModelInfo) -> Request:
        objects = [described(tensor) for tensor in sample(model)]
        change(model, objects)
        return Request("POST", path_of(model), body_of(objects))

    return make


def _field(key: str, value: Any) -> Callable[[ModelInfo], Request]:
    """A request whose first input has another value in one field; `None` takes the field away."""

    def change(model: ModelInfo, objects: Objects) -> None:
        if value is None:
            del objects[0][key]
        else:
            objects[0][key] = value

    return _changed(change)


def _raw(body: bytes) -> Callable[[ModelInfo], Request]:
    return lambda model: Request("POST", path_of(model), body, {"Content-Type": "application/json"})


def _missing(model: ModelInfo, objects: Objects) -> None:
    if len(objects) < 2:
        skip("the model has one input")
    objects.pop()


def _unknown(model: ModelInfo, objects: Objects) -> None:
    objects.append({**objects[0], "name": "conform_no_such_input"})


def _twice(model: ModelInfo, objects: Objects) -> None:
    objects.append(dict(objects[0]))


def _other_type(model: ModelInfo, objects: Objects) -> None:
    number = objects[0]["datatype"] != "BYTES"
    objects[0]["datatype"] = "BYTES" if number else "FP32"
    objects[0]["data"] = ["a" if number else 0.5 for _ in objects[0]["data"]]


def _text(model: ModelInfo, objects: Objects) -> None:
    number = next((item for item in objects if item["datatype"] not in ("BYTES", "BOOL")), None)
    if number is None or not number["data"]:
        skip("the model takes no numbers")
    number["data"][0] = "conform"


def _beyond(model: ModelInfo, objects: Objects) -> None:
    whole = next((item for item in objects if "INT" in item["datatype"] and item["data"]), None)
    if whole is None:
        skip("the model takes no whole numbers")
    whole["data"][0] = int(np.iinfo(whole["datatype"].lower()).max) + 1


def _rank(model: ModelInfo, objects: Objects) -> None:
    objects[0]["shape"] = [*objects[0]["shape"], 1, 1]


def _width(model: ModelInfo, objects: Objects) -> None:
    fixed = {tensor.name: tensor.shape for tensor in model.inputs}
    for item in objects:
        shape = fixed.get(item["name"], ())
        places = [place for place, size in enumerate(shape) if place and size > 0]
        if places and len(shape) == len(item["shape"]):
            place = places[-1]
            count = len(item["data"]) // item["shape"][place]
            item["shape"][place] += 1
            item["data"] = [*item["data"], *item["data"][:1] * count]
            return
    skip("no input has a fixed dimension")


def _short(model: ModelInfo, objects: Objects) -> None:
    if not objects[0]["data"]:
        skip("the first input is empty")
    objects[0]["data"].pop()


def _long(model: ModelInfo, objects: Objects) -> None:
    objects[0]["data"] += objects[0]["data"][:1] or [0]


def _ragged(model: ModelInfo, objects: Objects) -> None:
    item = objects[0]
    if len(item["data"]) < 2:
        other = next((o for o in objects if len(o["data"]) >= 2), None)
        if other is None:
            skip("no input has two elements")
        item = other
    item["data"] = [item["data"], item["data"][:1]]


def _huge(model: ModelInfo, objects: Objects) -> None:
    # 2^32 * 2^32 is 0 in 64 bits, and no data fills it.
    objects[0] |= {"shape": [_HUGE, _HUGE], "data": []}


def _large(model: ModelInfo, objects: Objects) -> None:
    objects[0]["shape"] = [1 << 40, *objects[0]["shape"][1:]]


def _nested(model: ModelInfo) -> Request:
    return Request("POST", path_of(model), b"[" * _DEEP, {"Content-Type": "application/json"})


def _no_output(model: ModelInfo) -> Request:
    return infer_json(model, sample(model), outputs=[{"name": "conform_no_such_output"}])


def _no_version(model: ModelInfo) -> Request:
    if not model.versions:
        skip("the metadata lists no versions")
    return infer_json(model, sample(model), version="987654321")


def _no_model(model: ModelInfo) -> Request:
    return infer_json(ModelInfo("conform-no-such-model", sample=sample(model)), sample(model))


def _cut(model: ModelInfo) -> Request:
    whole = infer_json(model, sample(model))
    return Request("POST", whole.path, whole.body[: len(whole.body) // 2])


def _not_utf8(model: ModelInfo) -> Request:
    whole = infer_json(model, sample(model), id="@@@@")
    return Request("POST", whole.path, whole.body.replace(b"@@@@", b"\xff\xfe\xc0\xaf"))


WRONG = (
    Wrong("error.unknown-model", "a model that is not there", "Inference", "required", _no_model),
    Wrong("error.unknown-version", "a version that is not there", "Inference", "required", _no_version),
    Wrong("error.malformed-json", "a body that stops in the middle", "Inference Request", "required", _cut),
    Wrong("error.empty-body", "no body at all", "Inference Request", "required", _raw(b"")),
    Wrong("error.not-an-object", "a list instead of an object", "Inference Request", "required", _raw(b"[]")),
    Wrong("error.no-inputs", "an object without inputs", "Inference Request", "required", _raw(b"{}")),
    Wrong("error.inputs-no-list", "inputs that are a number", "Inference Request", "required",
          _raw(b'{"inputs":1}')),
    Wrong("error.deep-nesting", "50,000 brackets", "Inference Request", "required", _nested),
    Wrong("error.not-utf8", "bytes that are no UTF-8 in a text", "Inference Request", "optional", _not_utf8),
    Wrong("error.missing-input", "one input left out", "Model Metadata", "required", _changed(_missing)),
    Wrong("error.unknown-input", "an input that the model does not have", "Model Metadata", "optional",
          _changed(_unknown)),
    Wrong("error.duplicate-input", "an input given twice", "Request Input", "optional", _changed(_twice)),
    Wrong("error.unknown-output", "an output that the model does not have", "Request Output", "required",
          _no_output),
    Wrong("error.no-name", "an input without a name", "Request Input", "required", _field("name", None)),
    Wrong("error.no-datatype", "an input without a datatype", "Request Input", "required",
          _field("datatype", None)),
    Wrong("error.unknown-datatype", "a datatype that does not exist", "Tensor Data Types", "required",
          _field("datatype", "FP31")),
    Wrong("error.wrong-datatype", "text for numbers, or numbers for text", "Request Input", "required",
          _changed(_other_type)),
    Wrong("error.text-for-number", "a text among numbers", "Tensor Data", "required", _changed(_text)),
    Wrong("error.out-of-range", "a number that the datatype cannot hold", "Tensor Data Types", "optional",
          _changed(_beyond)),
    Wrong("error.no-shape", "an input without a shape", "Request Input", "required", _field("shape", None)),
    Wrong("error.negative-shape", "a negative dimension", "Request Input", "required",
          _field("shape", [-1, -4])),
    Wrong("error.fractional-shape", "half a dimension", "Request Input", "required",
          _field("shape", [1.5, 2])),
    Wrong("error.wrong-rank", "two dimensions too many", "Model Metadata", "required", _changed(_rank)),
    Wrong("error.wrong-shape", "a fixed dimension of another size", "Model Metadata", "required",
          _changed(_width)),
    Wrong("error.huge-shape", "dimensions that multiply past 2^63", "Request Input", "required",
          _changed(_huge)),
    Wrong("error.large-shape", "a shape of 2^40 items with the data of one", "Request Input", "required",
          _changed(_large)),
    Wrong("error.no-data", "an input without data", "Request Input", "required", _field("data", None)),
    Wrong("error.short-data", "one element too few", "Tensor Data", "required", _changed(_short)),
    Wrong("error.long-data", "one element too many", "Tensor Data", "required", _changed(_long)),
    Wrong("error.ragged-data", "lists of different lengths", "Tensor Data", "required", _changed(_ragged)),
)  # fmt: skip
