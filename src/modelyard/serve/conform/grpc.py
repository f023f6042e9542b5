"""Cases of the protocol over gRPC, run where an address of it is given."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from modelyard.core.require import require
from modelyard.core.spec import numpy_type
from modelyard.serve.conform.case import Case, Check, need, skip
from modelyard.serve.conform.client import Client
from modelyard.serve.conform.exchange import Exchange, Request, Response
from modelyard.serve.conform.message import Answer, Output, agree, answered, infer_json, sample, steady
from modelyard.serve.conform.model import ModelInfo
from modelyard.serve.conform.tensor import Array, Sample, from_raw, raw_bytes
from modelyard.serve.grpc.messages import CONTENTS, METHODS, SERVICE, messages

_BAD_ARGUMENT = ("INVALID_ARGUMENT", "OUT_OF_RANGE", "FAILED_PRECONDITION")


def call(client: Client, method: str, message: Any) -> tuple[Any, Exchange]:
    """One call; the response, or `None` with an exchange whose body begins with the status code."""
    grpc = require("grpc", extra="grpc")
    formatting = require("google.protobuf.json_format", extra="grpc")
    address = client.grpc or skip("no gRPC address was given (--grpc HOST:PORT)")
    asked = Request("GRPC", f"/{SERVICE}/{method}", formatting.MessageToJson(message, indent=None).encode(),
                    {"grpc-address": address})  # fmt: skip
    # A proxy from the environment would take the traffic elsewhere.
    options = [("grpc.enable_http_proxy", 0), ("grpc.max_receive_message_length", client.limit)]
    started = time.perf_counter()
    with grpc.insecure_channel(address, options=options) as channel:
        ask = channel.unary_unary(
            f"/{SERVICE}/{method}",
            request_serializer=lambda value: value.SerializeToString(),
            response_deserializer=messages()[METHODS[method][1]].FromString,
        )
        try:
            answer = ask(message, timeout=client.timeout, metadata=_metadata(client))
        except grpc.RpcError as error:
            text = f"{error.code().name} {error.details()}".encode()
            return None, Exchange(asked, Response(500, {}, text, time.perf_counter() - started))
    body = formatting.MessageToJson(answer, indent=None).encode()
    return answer, Exchange(asked, Response(200, {}, body, time.perf_counter() - started))


def _metadata(client: Client) -> list[tuple[str, str]]:
    return [(name.lower(), value) for name, value in client.headers.items()]


def _call_ok(client: Client, method: str, **fields: Any) -> tuple[Any, Exchange]:
    answer, exchange = call(client, method, messages()[METHODS[method][0]](**fields))
    need(answer is not None, f"{method}: {exchange.said()[4:]}", exchange)
    return answer, exchange


def _health(client: Client, model: ModelInfo) -> None:
    for method, field, fields in (
        ("ServerLive", "live", {}),
        ("ServerReady", "ready", {}),
        ("ModelReady", "ready", {"name": model.name}),
    ):
        answer, exchange = _call_ok(client, method, **fields)
        need(getattr(answer, field), f"{method} says no", exchange)


def _metadata_agrees(client: Client, model: ModelInfo) -> None:
    server, exchange = _call_ok(client, "ServerMetadata")
    need(bool(server.name), "the server has no name", exchange)
    value, exchange = _call_ok(client, "ModelMetadata", name=model.name)
    need(value.name == model.name, f"'name' is {value.name!r}", exchange)
    for side, known in (("inputs", model.inputs), ("outputs", model.outputs)):
        got = [(t.name, t.datatype, tuple(t.shape)) for t in getattr(value, side)]
        want = [(t.name, t.datatype, t.shape) for t in known]
        need(sorted(got) == sorted(want), f"{side} are {got}, over REST {want}", exchange)


def request(model: ModelInfo, inputs: Sample, *, raw: bool, **fields: Any) -> Any:
    """A ModelInfer request with typed contents or raw ones."""
    kinds = messages()
    made = kinds["ModelInferRequest"](model_name=model.name, **fields)
    for tensor in inputs:
        one = made.inputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.values.shape)
        if raw:
            made.raw_input_contents.append(raw_bytes(tensor))
            continue
        if tensor.datatype not in CONTENTS:
            skip(f"{tensor.datatype} has no typed contents")
        flat = tensor.values.ravel().tolist()
        values = [str(item).encode() for item in flat] if tensor.datatype == "BYTES" else flat
        getattr(one.contents, CONTENTS[tensor.datatype]).extend(values)
    return made


def _infer(client: Client, message: Any) -> Answer:
    value, exchange = call(client, "ModelInfer", message)
    need(value is not None, f"a valid request was not answered: {exchange.said()[4:]}", exchange)
    raws = list(value.raw_output_contents)
    need(len(raws) in (0, len(value.outputs)), f"{len(raws)} raw contents", exchange)
    outputs = []
    for index, tensor in enumerate(value.outputs):
        try:
            values = _values(tensor, raws[index] if raws else None)
        except (KeyError, ValueError) as error:
            need(False, f"output {tensor.name!r}: {error}", exchange)
            raise
        outputs.append(Output(tensor.name, tensor.datatype, values, bool(raws)))
    return Answer({"model_name": value.model_name, "id": value.id}, tuple(outputs), exchange)


def _values(tensor: Any, raw: bytes | None) -> Array:
    shape = tuple(tensor.shape)
    if raw is not None:
        return from_raw(raw, tensor.datatype, shape)
    listed = list(getattr(tensor.contents, CONTENTS[tensor.datatype]))
    if tensor.datatype == "BYTES":
        texts: Array = np.empty(len(listed), dtype=object)
        texts[:] = [item.decode("utf-8", "replace") for item in listed]
        return texts.reshape(shape)
    return np.array(listed, dtype=numpy_type(tensor.datatype)).reshape(shape)


def _equals_rest(raw: bool) -> Check:
    def check(client: Client, model: ModelInfo) -> None:
        inputs = sample(model, items=2)
        plain = steady(client, model, inputs)
        agree(plain, _infer(client, request(model, inputs, raw=raw)), "gRPC answers otherwise than REST")

    return check


def _id(client: Client, model: ModelInfo) -> None:
    answer = _infer(client, request(model, sample(model), raw=True, id="conform-42"))
    need(answer.head["id"] == "conform-42", f"the id came back as {answer.head['id']!r}", answer.exchange)
    need(answer.head["model_name"] == model.name, "another model is named", answer.exchange)


def _named(client: Client, model: ModelInfo) -> None:
    inputs = sample(model)
    name = answered(client, infer_json(model, inputs)).outputs[0].name
    answer = _infer(client, request(model, inputs, raw=True, outputs=[{"name": name}]))
    got = [output.name for output in answer.outputs]
    need(got == [name], f"{name!r} was asked for, {got} came", answer.exchange)


def _refused(change: Callable[[Any], None], codes: tuple[str, ...]) -> Check:
    def check(client: Client, model: ModelInfo) -> str:
        message = request(model, sample(model), raw=True)
        change(message)
        value, exchange = call(client, "ModelInfer", message)
        need(value is None, f"it was answered: {exchange.said()}", exchange)
        code = exchange.said()[4:].partition(" ")[0]
        need(code in codes, f"the status is {code}, not one of {', '.join(codes)}", exchange)
        return code

    return check


def _no_model(message: Any) -> None:
    message.model_name = "conform-no-such-model"


def _cut(message: Any) -> None:
    message.raw_input_contents[0] = message.raw_input_contents[0][:-1]


def _too_few(message: Any) -> None:
    message.raw_input_contents.pop()


def _no_datatype(message: Any) -> None:
    message.inputs[0].datatype = "FP31"


def _offered(check: Check) -> Check:
    def only(client: Client, model: ModelInfo) -> str | None:
        if client.grpc is None:
            skip("no gRPC address was given (--grpc HOST:PORT)")
        return check(client, model)

    return only


GRPC = tuple(
    Case(name, title, "gRPC", "optional", _offered(check))
    for name, title, check in (
        ("grpc.health", "live, ready, model ready", _health),
        ("grpc.metadata", "metadata, the same as over REST", _metadata_agrees),
        ("grpc.raw", "raw contents: the same answers as over REST", _equals_rest(True)),
        ("grpc.typed", "typed contents: the same answers as over REST", _equals_rest(False)),
        ("grpc.id", "the id comes back", _id),
        ("grpc.named-outputs", "only the outputs asked for come", _named),
        ("grpc.unknown-model", "refused: a model that is not there", _refused(_no_model, ("NOT_FOUND",))),
        ("grpc.truncated", "refused: raw contents cut short", _refused(_cut, _BAD_ARGUMENT)),
        ("grpc.too-few", "refused: fewer raw contents than inputs", _refused(_too_few, _BAD_ARGUMENT)),
        ("grpc.datatype", "refused: a datatype that does not exist", _refused(_no_datatype, _BAD_ARGUMENT)),
    )
)
