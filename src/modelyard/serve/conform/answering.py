"""Cases of right answers to right requests."""

from __future__ import annotations

import json

import numpy as np

from modelyard.serve.conform.case import Case, need, skip
from modelyard.serve.conform.client import Client
from modelyard.serve.conform.exchange import Request
from modelyard.serve.conform.message import (
    Answer,
    agree,
    answered,
    body_of,
    described,
    infer_json,
    path_of,
    sample,
    steady,
)
from modelyard.serve.conform.model import ModelInfo
from modelyard.serve.conform.tensor import same

_BATCH = 5


def _all(client: Client, model: ModelInfo) -> None:
    answered(client, infer_json(model, sample(model)))


def _name(client: Client, model: ModelInfo) -> None:
    answer = answered(client, infer_json(model, sample(model)))
    said = answer.head.get("model_name")
    need(said == model.name, f"'model_name' is {said!r}", answer.exchange)


def _signature(client: Client, model: ModelInfo) -> None:
    if not model.outputs:
        skip("the metadata names no outputs")
    answer = answered(client, infer_json(model, sample(model)))
    promised = {tensor.name: tensor for tensor in model.outputs}
    for output in answer.outputs:
        tensor = promised.pop(output.name, None)
        if tensor is None:
            need(False, f"output {output.name!r} is not in the metadata", answer.exchange)
            return
        need(tensor.datatype == output.datatype,
             f"output {output.name!r} is {output.datatype}, the metadata says {tensor.datatype}",
             answer.exchange)  # fmt: skip
        got = output.values.shape
        fits = len(got) == len(tensor.shape) and all(
            want in (-1, size) for want, size in zip(tensor.shape, got, strict=True)
        )
        need(fits, f"output {output.name!r} is {list(got)}, the metadata says {list(tensor.shape)}",
             answer.exchange)  # fmt: skip
    need(not promised, f"outputs are missing: {', '.join(promised)}", answer.exchange)


def _id(client: Client, model: ModelInfo) -> None:
    for identity in ("conform-42", "ünï/\"'<é>", "7"):
        answer = answered(client, infer_json(model, sample(model), id=identity))
        said = answer.head.get("id")
        need(said == identity, f"the id {identity!r} came back as {said!r}", answer.exchange)


def _named(client: Client, model: ModelInfo) -> str:
    inputs = sample(model)
    whole = answered(client, infer_json(model, inputs))
    names = [output.name for output in whole.outputs]
    for name in names:
        answer = answered(client, infer_json(model, inputs, outputs=[{"name": name}]))
        got = [output.name for output in answer.outputs]
        need(got == [name], f"{name!r} was asked for, {got} came", answer.exchange)
    return f"{len(names)} outputs, one at a time"


def _nested(client: Client, model: ModelInfo) -> None:
    inputs = sample(model, items=2)
    if all(tensor.values.ndim < 2 for tensor in inputs):
        skip("no input has two dimensions")
    flat = steady(client, model, inputs)
    nested = body_of([described(tensor, nested=True) for tensor in inputs])
    agree(flat, answered(client, Request("POST", path_of(model), nested)), "nested data is read differently")


def _order(client: Client, model: ModelInfo) -> None:
    inputs = sample(model)
    if len(inputs) < 2:
        skip("the model has one input")
    straight = steady(client, model, inputs)
    agree(straight, answered(client, infer_json(model, inputs[::-1])), "the order of inputs matters")


def _parameters(client: Client, model: ModelInfo) -> None:
    inputs = sample(model)
    plain = steady(client, model, inputs)
    unknown = {"conform_text": "a", "conform_number": 1, "conform_truth": True}
    objects = [{**described(tensor), "parameters": unknown} for tensor in inputs]
    outputs = [{"name": output.name, "parameters": unknown} for output in plain.outputs]
    body = body_of(objects, parameters=unknown, outputs=outputs)
    agree(plain, answered(client, Request("POST", path_of(model), body)), "unknown parameters change it")


def _batch(client: Client, model: ModelInfo) -> str:
    if not model.batched:
        skip("an input's first dimension is fixed")
    inputs = sample(model, items=_BATCH)
    whole = steady(client, model, inputs)
    for place in range(_BATCH):
        single = answered(client, infer_json(model, tuple(t.items(place, place + 1) for t in inputs)))
        _same_item(whole, single, place)
    return f"{_BATCH} items"


def _same_item(whole: Answer, single: Answer, place: int) -> None:
    alone = {output.name: output for output in single.outputs}
    for output in whole.outputs:
        fits = output.values.ndim > 0 and output.values.shape[0] == _BATCH
        need(fits, f"output {output.name!r} of a batch of {_BATCH} is {list(output.values.shape)}",
             whole.exchange)  # fmt: skip
        other = alone.get(output.name)
        equal = other is not None and same(output.values[place : place + 1], other.values, output.datatype)
        need(equal, f"item {place} of the batch has another {output.name!r} than alone", whole.exchange)


def _numbers(client: Client, model: ModelInfo) -> str:
    """Whole numbers without a point, exponents and negative zero are all numbers."""
    inputs = sample(model)
    floats = [tensor for tensor in inputs if tensor.datatype.startswith("FP")]
    if not floats:
        skip("the model takes no floats")
    plain = tuple(type(t)(t.name, t.datatype, np.ones_like(t.values)) if t in floats else t for t in inputs)
    expected = steady(client, model, plain)
    for spelling in ("1", "1.0", "10e-1", "0.1E+1"):
        body = body_of([described(tensor) for tensor in plain]).replace(b"1.0", spelling.encode())
        agree(
            expected, answered(client, Request("POST", path_of(model), body)), f"{spelling} is not read as 1"
        )
    return "1, 1.0, 10e-1, 0.1E+1"


def _not_numbers(client: Client, model: ModelInfo) -> str:
    """What becomes of NaN and infinities, which JSON does not know; said, and failed only when it breaks."""
    inputs = sample(model)
    first = next((t for t in inputs if t.datatype.startswith("FP") and t.values.size), None)
    if first is None:
        skip("the model takes no floats")
    said = []
    for spelling in ("NaN", "Infinity", "null", "1e999"):
        objects = [described(tensor) for tensor in inputs]
        chosen = next(item for item in objects if item["name"] == first.name)
        chosen["data"][0] = "@"
        body = body_of(objects).replace(b'"@"', spelling.encode())
        exchange = client.send(Request("POST", path_of(model), body))
        need(exchange.response is not None, f"{spelling}: {exchange.said()}", exchange)
        need(exchange.status < 500, f"{spelling}: {exchange.said()}", exchange)
        if exchange.status == 200:
            text = b"" if exchange.response is None else exchange.response.body
            need(_strict(text), f"{spelling}: the answer is no JSON", exchange)
        said.append(f"{spelling} {'answered' if exchange.status == 200 else f'refused ({exchange.status})'}")
    return ", ".join(said)


def _strict(body: bytes) -> bool:
    def no(text: str) -> None:
        raise ValueError(text)

    try:
        json.loads(body, parse_constant=no)
    except ValueError:
        return False
    return True


def _datatypes(client: Client, model: ModelInfo) -> str:
    """Each input takes both truths, signed and small numbers, empty text and text beyond ASCII."""
    inputs = sample(model)
    seen = sorted({tensor.datatype for tensor in inputs})
    if model.sample is not None:
        answered(client, infer_json(model, inputs))
        return ", ".join(seen) + " (the sample's values only)"
    for place, tensor in enumerate(inputs):
        if tensor.datatype == "BOOL":
            ends = [np.zeros_like(tensor.values), np.ones_like(tensor.values)]
        elif tensor.datatype == "BYTES":
            ends = [np.full(tensor.values.shape, text, dtype=object) for text in ("", 'é"\\\n中😀')]
        elif tensor.datatype.startswith("FP"):
            ends = [np.full_like(tensor.values, value) for value in (0, -0.5, 1e-3)]
        else:
            continue
        for end in ends:
            changed = tuple(
                type(t)(t.name, t.datatype, end) if index == place else t for index, t in enumerate(inputs)
            )
            answered(client, infer_json(model, changed))
    return ", ".join(seen)


def _content(client: Client, model: ModelInfo) -> None:
    exchange = answered(client, infer_json(model, sample(model))).exchange
    kind = "" if exchange.response is None else exchange.response.kind
    need(kind == "application/json", f"an answer in JSON has the content type {kind!r}", exchange)


ANSWERING = (
    Case("infer.all", "all inputs given: outputs with name, datatype, shape, data", "Inference", "required",
         _all),
    Case("infer.model-name", "the answer names the model", "Inference Response", "required", _name),
    Case("infer.signature", "outputs agree with the metadata", "Model Metadata", "required", _signature),
    Case("infer.id", "the request's id comes back", "Inference Request", "required", _id),
    Case("infer.named-outputs", "only the outputs asked for come", "Request Output", "required", _named),
    Case("infer.nested", "nested data means the same as flat data", "Tensor Data", "required", _nested),
    Case("infer.input-order", "inputs go by name, not by place", "Request Input", "required", _order),
    Case("infer.numbers", "every spelling of a number is read", "Tensor Data", "required", _numbers),
    Case("infer.datatypes", "every datatype the model takes is taken", "Tensor Data Types", "required",
         _datatypes),
    Case("infer.batch", "a batch gives what its items give alone", "Request Input", "required", _batch),
    Case("infer.content-type", "answers in JSON say so", "HTTP/REST", "required", _content),
    Case("infer.parameters", "unknown parameters do no harm", "Parameters", "optional", _parameters),
    Case("infer.not-a-number", "NaN, infinity, null: answered or refused, in JSON", "Tensor Data", "optional",
         _not_numbers),
)  # fmt: skip
