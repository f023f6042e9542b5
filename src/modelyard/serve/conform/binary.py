"""Cases of the binary tensor data extension (Triton's `extension_binary_data.md`)."""

from __future__ import annotations

import struct

from modelyard.serve.conform.case import Case, Check, need, skip
from modelyard.serve.conform.client import Client
from modelyard.serve.conform.exchange import Request
from modelyard.serve.conform.message import (
    HEADER_LENGTH,
    Answer,
    agree,
    answered,
    body_of,
    described,
    framed,
    infer_binary,
    infer_json,
    sample,
    steady,
)
from modelyard.serve.conform.model import ModelInfo
from modelyard.serve.conform.tensor import Sample, raw_bytes

EXTENSION = "binary_tensor_data"


def _announced(check: Check) -> Check:
    def only(client: Client, model: ModelInfo) -> str | None:
        if EXTENSION not in model.extensions:
            skip(f"the server does not announce {EXTENSION}")
        return check(client, model)

    return only


def _inputs(client: Client, model: ModelInfo) -> None:
    for items in (1, 3) if model.batched else (1,):
        inputs = sample(model, items=items)
        plain = steady(client, model, inputs)
        agree(plain, answered(client, infer_binary(model, inputs)), "binary inputs are read differently")


def _alternating(client: Client, model: ModelInfo) -> None:
    inputs = sample(model)
    if len(inputs) < 2:
        skip("the model has one input")
    plain = steady(client, model, inputs)
    for first in (0, 1):
        marks = [index % 2 == first for index in range(len(inputs))]
        agree(
            plain,
            answered(client, infer_binary(model, inputs, raw=marks)),
            "mixed inputs are read differently",
        )


def _outputs(client: Client, model: ModelInfo) -> None:
    inputs = sample(model)
    plain = steady(client, model, inputs)
    answer = answered(client, infer_json(model, inputs, parameters={"binary_data_output": True}))
    _raw(answer, True)
    agree(plain, answer, "binary outputs differ")
    headers = {} if answer.exchange.response is None else answer.exchange.response.headers
    need(HEADER_LENGTH.lower() in headers, f"the answer has no {HEADER_LENGTH}", answer.exchange)


def _one_output(client: Client, model: ModelInfo) -> None:
    inputs = sample(model)
    plain = steady(client, model, inputs)
    wanted = [
        {"name": output.name, "parameters": {"binary_data": index == 0}}
        for index, output in enumerate(plain.outputs)
    ]
    answer = answered(client, infer_json(model, inputs, outputs=wanted))
    for output in answer.outputs:
        chosen = output.name == plain.outputs[0].name
        need(output.raw == chosen, f"output {output.name!r} came {_form(output.raw)}", answer.exchange)
    agree(plain, answer, "a binary output differs")


def _override(client: Client, model: ModelInfo) -> None:
    inputs = sample(model)
    plain = steady(client, model, inputs)
    wanted = [{"name": output.name, "parameters": {"binary_data": False}} for output in plain.outputs]
    asked = infer_json(model, inputs, outputs=wanted, parameters={"binary_data_output": True})
    answer = answered(client, asked)
    _raw(answer, False)
    agree(plain, answer, "outputs differ")


def _raw(answer: Answer, wanted: bool) -> None:
    for output in answer.outputs:
        need(output.raw == wanted, f"output {output.name!r} came {_form(output.raw)}", answer.exchange)


def _form(raw: bool) -> str:
    return "as bytes" if raw else "in JSON"


def _content(client: Client, model: ModelInfo) -> None:
    request = infer_json(model, sample(model), parameters={"binary_data_output": True})
    exchange = answered(client, request).exchange
    kind = "" if exchange.response is None else exchange.response.kind
    need(kind == "application/octet-stream", f"an answer with bytes is {kind!r}", exchange)


def _refused(client: Client, *requests: Request) -> str:
    said = []
    for request in requests:
        exchange = client.send(request)
        need(exchange.status >= 400, f"it was {exchange.said()}", exchange)
        said.append(str(exchange.status))
    return ", ".join(said)


def _head(inputs: Sample, size: object | None = None, *, data: bool = False) -> tuple[bytes, bytes]:
    """The JSON and the bytes of a request whose first input says another size, or has JSON data too."""
    objects, parts = [], []
    for index, tensor in enumerate(inputs):
        raw = raw_bytes(tensor)
        parts.append(raw)
        said = len(raw) if index or size is None else size
        value = {**described(tensor), "parameters": {"binary_data_size": said}}
        if index or not data:
            del value["data"]
        objects.append(value)
    return body_of(objects), b"".join(parts)


def _truncated(client: Client, model: ModelInfo) -> str:
    head, tail = _head(sample(model))
    return _refused(client, *(framed(model, head, tail[:-cut]) for cut in (1, len(tail)) if tail))


def _left_over(client: Client, model: ModelInfo) -> str:
    head, tail = _head(sample(model))
    return _refused(client, framed(model, head, tail + b"\0" * 4))


def _size(client: Client, model: ModelInfo) -> str:
    inputs = sample(model)
    true = len(raw_bytes(inputs[0]))
    wrong = [true - 1, true + 1, -true, 1 << 63, str(true) + "x", true + 0.5]
    return _refused(client, *(framed(model, *_head(inputs, size)) for size in wrong))


def _length(client: Client, model: ModelInfo) -> str:
    head, tail = _head(sample(model))
    true = len(head)
    wrong = [str(true - 1), str(true + 1), str(true + len(tail) + 1), "0", "-1", "many", str(1 << 64)]
    return _refused(client, *(framed(model, head, tail, length=text) for text in wrong))


def _prefix(client: Client, model: ModelInfo) -> str:
    inputs = sample(model)
    texts = next((tensor for tensor in inputs if tensor.datatype == "BYTES"), None)
    if texts is None:
        skip("the model takes no BYTES")
    made = []
    for prefix in (0, 0xFFFFFFFF):
        objects, parts = [], []
        for tensor in inputs:
            raw = raw_bytes(tensor)
            if tensor is texts:
                raw = struct.pack("<I", prefix) + raw[4:]
            parts.append(raw)
            said = {**described(tensor), "parameters": {"binary_data_size": len(raw)}}
            del said["data"]
            objects.append(said)
        made.append(framed(model, body_of(objects), b"".join(parts)))
    return _refused(client, *made)


def _both(client: Client, model: ModelInfo) -> str:
    return _refused(client, framed(model, *_head(sample(model), data=True)))


_SECTION = "Binary Tensor Data"

BINARY = tuple(
    Case(name, title, _SECTION, "extension", _announced(check))
    for name, title, check in (
        ("binary.inputs", "binary inputs mean the same as JSON", _inputs),
        ("binary.mixed-inputs", "some inputs binary, some in JSON", _alternating),
        ("binary.outputs", "all outputs binary when asked (binary_data_output)", _outputs),
        ("binary.one-output", "one output binary, the others in JSON (binary_data)", _one_output),
        ("binary.override", "binary_data overrides binary_data_output", _override),
        ("binary.content-type", "answers with bytes are octet streams", _content),
        ("binary.truncated", "refused: bytes that are cut short", _truncated),
        ("binary.left-over", "refused: bytes that belong to nothing", _left_over),
        ("binary.size", "refused: a wrong binary_data_size", _size),
        ("binary.header-length", "refused: a wrong Inference-Header-Content-Length", _length),
        ("binary.text-prefix", "refused: a text's length prefix that is wrong", _prefix),
        ("binary.data-twice", "refused: data in JSON and as bytes", _both),
    )
)
