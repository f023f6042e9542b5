"""Inference requests as JSON and as JSON with raw bytes behind it; answers back into arrays."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from modelyard.core.spec import DATATYPES
from modelyard.serve.conform.case import need, skip
from modelyard.serve.conform.client import Client
from modelyard.serve.conform.exchange import Exchange, Request
from modelyard.serve.conform.model import ModelInfo
from modelyard.serve.conform.tensor import (
    Array,
    Sample,
    Tensor,
    from_json,
    from_raw,
    json_values,
    made_up,
    raw_bytes,
    same,
)

HEADER_LENGTH = "Inference-Header-Content-Length"


@dataclass(frozen=True, slots=True)
class Output:
    """One output of an answer; `raw` when it came as bytes behind the JSON."""

    name: str
    datatype: str
    values: Array
    raw: bool


@dataclass(frozen=True, slots=True)
class Answer:
    """A good answer: its JSON head and its outputs in order."""

    head: dict[str, Any]
    outputs: tuple[Output, ...]
    exchange: Exchange


def sample(model: ModelInfo, *, items: int = 1, seed: int = 0) -> Sample:
    """Valid inputs with `items` items: from the person's sample where there is one, else made up."""
    if model.sample is not None:
        given = model.sample
        count = min((tensor.values.shape[0] for tensor in given if tensor.values.ndim), default=0)
        if not model.batched or count < 1:
            return given
        start = (seed * items) % count
        places = [(start + offset) % count for offset in range(items)]
        return tuple(Tensor(t.name, t.datatype, t.values[places]) for t in given)
    if not model.inputs:
        skip("the metadata names no inputs; give some with --inputs FILE")
    try:
        return tuple(
            made_up(tensor.name, tensor.datatype, tensor.shape, items=items, seed=seed)
            for tensor in model.inputs
        )
    except ValueError as error:
        skip(f"{error}; give inputs with --inputs FILE")


def described(tensor: Tensor, *, nested: bool = False) -> dict[str, Any]:
    """An input's JSON object with its data."""
    return {
        "name": tensor.name,
        "shape": list(tensor.values.shape),
        "datatype": tensor.datatype,
        "data": json_values(tensor.values, nested=nested),
    }


def body_of(inputs: Sequence[dict[str, Any]], **fields: Any) -> bytes:
    """An inference request's JSON; `fields` are id, outputs, parameters."""
    return json.dumps({**fields, "inputs": list(inputs)}, separators=(",", ":")).encode()


def infer_json(model: ModelInfo, inputs: Sample, *, version: str | None = None, **fields: Any) -> Request:
    """An inference request with all data in JSON, flat."""
    return Request("POST", path_of(model, version), body_of([described(item) for item in inputs], **fields))


def path_of(model: ModelInfo, version: str | None = None) -> str:
    return model.path + ("" if version is None else f"/versions/{version}") + "/infer"


def infer_binary(
    model: ModelInfo, inputs: Sample, *, raw: Sequence[bool] | None = None, **fields: Any
) -> Request:
    """An inference request with raw bytes behind the JSON, for the inputs that `raw` marks (all)."""
    marks = [True] * len(inputs) if raw is None else list(raw)
    objects, parts = [], []
    for tensor, binary in zip(inputs, marks, strict=True):
        value = described(tensor)
        if binary:
            data = raw_bytes(tensor)
            parts.append(data)
            del value["data"]
            value["parameters"] = {"binary_data_size": len(data)}
        objects.append(value)
    return framed(model, body_of(objects, **fields), b"".join(parts))


def framed(model: ModelInfo, head: bytes, tail: bytes, *, length: str | None = None) -> Request:
    """A request of JSON and bytes, with its true header length unless another one is given."""
    headers = {
        "Content-Type": "application/octet-stream",
        HEADER_LENGTH: str(len(head)) if length is None else length,
    }
    return Request("POST", path_of(model), head + tail, headers)


def answered(client: Client, request: Request) -> Answer:
    """Sends a request that must be answered well; fails the case when it is not."""
    return read_answer(client.send(request))


def read_answer(exchange: Exchange) -> Answer:
    """The answer of an exchange; fails the case, with this exchange, when it is none."""
    need(exchange.status == 200, f"a valid request was not answered: {exchange.said()}", exchange)
    response = exchange.response
    body = b"" if response is None else response.body
    length = None if response is None else response.headers.get(HEADER_LENGTH.lower())
    at = len(body)
    if length is not None:
        need(length.isdigit() and int(length) <= len(body), f"{HEADER_LENGTH} is {length!r}", exchange)
        at = int(length)
    try:
        head = json.loads(body[:at], parse_constant=_no_json)
    except ValueError as error:
        need(False, f"the answer is no JSON: {error}", exchange)
    listed = head.get("outputs") if isinstance(head, dict) else None
    need(isinstance(listed, list) and bool(listed), "the answer has no outputs", exchange)
    outputs = []
    for item in listed or []:
        output, at = _output(item, body, at, exchange)
        outputs.append(output)
    need(at == len(body), f"{len(body) - at} bytes are left over behind the outputs", exchange)
    return Answer(head, tuple(outputs), exchange)


def _output(item: object, body: bytes, at: int, exchange: Exchange) -> tuple[Output, int]:
    need(isinstance(item, dict) and isinstance(item.get("name"), str), "an output has no name", exchange)
    value: dict[str, Any] = item if isinstance(item, dict) else {}
    name, datatype, shape = value["name"], value.get("datatype"), value.get("shape")
    need(datatype in DATATYPES, f"output {name!r} has the datatype {datatype!r}", exchange)
    fine = isinstance(shape, list) and all(type(size) is int and size >= 0 for size in shape)
    need(fine, f"output {name!r} has the shape {shape!r}", exchange)
    sizes, kind = tuple(shape or ()), str(datatype)
    size = (value.get("parameters") or {}).get("binary_data_size")
    try:
        if size is None:
            return Output(name, kind, from_json(value.get("data"), kind, sizes), False), at
        need(type(size) is int and 0 <= size <= len(body) - at, f"binary_data_size is {size!r}", exchange)
        return Output(name, kind, from_raw(body[at : at + size], kind, sizes), True), at + size
    except ValueError as error:
        need(False, f"output {name!r}: {error}", exchange)
        raise


def agree(left: Answer, right: Answer, why: str) -> None:
    """Fails the case unless both answers hold the same outputs with the same values; shows the right one."""
    names = [output.name for output in left.outputs], [output.name for output in right.outputs]
    need(sorted(names[0]) == sorted(names[1]), f"{why}: outputs {names[1]} for {names[0]}", right.exchange)
    other = {output.name: output for output in right.outputs}
    for output in left.outputs:
        equal = same(output.values, other[output.name].values, output.datatype)
        need(equal, f"{why}: output {output.name!r} differs", right.exchange)


def steady(client: Client, model: ModelInfo, inputs: Sample) -> Answer:
    """The answer to these inputs; skips the case where asking again gives another one (a random model)."""
    first, again = (answered(client, infer_json(model, inputs)) for _ in range(2))
    for left, right in zip(first.outputs, again.outputs, strict=False):
        if left.values.shape != right.values.shape or not same(left.values, right.values, left.datatype):
            skip("the model gives different answers to the same request")
    return first


def _no_json(text: str) -> None:
    raise ValueError(f"{text} is no JSON")
