"""The gRPC cases against a small gRPC server; needs grpcio."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from modelyard.serve.conform.client import Client
from modelyard.serve.conform.exchange import Request, curl
from modelyard.serve.conform.grpc import GRPC
from modelyard.serve.conform.kit import conform
from modelyard.serve.conform.message import infer_binary
from modelyard.serve.conform.model import ModelInfo
from modelyard.serve.conform.tensor import Tensor, from_raw, raw_bytes
from modelyard.serve.grpc.messages import CONTENTS, METHODS, SERVICE, messages


class Bridge:
    """Answers gRPC by asking the reference server over its REST door."""

    def __init__(self, served: Any, grpc: Any, breaks: tuple[str, ...] = ()) -> None:
        self.served, self.grpc, self.breaks = served, grpc, breaks

    def call(self, method: str, message: Any, context: Any) -> Any:
        made = messages()[METHODS[method][1]]
        if method == "ModelInfer":
            return self.infer(message, context, made)
        if method == "ServerMetadata":
            return made(name="reference", version="1")
        if method == "ModelMetadata":
            value = json.loads(self.served.answer("GET", f"/v2/models/{message.name}", {}, b"").body)
            return made(name=value["name"], inputs=value["inputs"], outputs=value["outputs"])
        return made(live=True) if method == "ServerLive" else made(ready=True)

    def infer(self, message: Any, context: Any, made: Any) -> Any:
        tensors = []
        raws = list(message.raw_input_contents)
        if raws and len(raws) != len(message.inputs):
            context.abort(self.grpc.StatusCode.INVALID_ARGUMENT, "too few")
        try:
            for index, item in enumerate(message.inputs):
                if raws:
                    values = from_raw(raws[index], item.datatype, tuple(item.shape))
                else:
                    listed = list(getattr(item.contents, CONTENTS[item.datatype]))
                    listed = [text.decode() for text in listed] if item.datatype == "BYTES" else listed
                    values = self.array(listed, item)
                tensors.append(Tensor(item.name, item.datatype, values))
        except (KeyError, ValueError) as error:
            context.abort(self.grpc.StatusCode.INVALID_ARGUMENT, str(error))
        model = ModelInfo(message.model_name)
        fields: dict[str, Any] = {"parameters": {"binary_data_output": True}}
        if message.outputs:
            fields["outputs"] = [{"name": item.name} for item in message.outputs]
        if message.id and "id" not in self.breaks:
            fields["id"] = message.id
        asked = infer_binary(model, tuple(tensors), **fields)
        response = self.served.answer("POST", asked.path, asked.headers, asked.body)
        if response.status == 404 and "status" not in self.breaks:
            context.abort(self.grpc.StatusCode.NOT_FOUND, "no such model")
        if response.status != 200:
            context.abort(self.grpc.StatusCode.UNKNOWN, response.body.decode())
        at = int(response.headers["inference-header-content-length"])
        head = json.loads(response.body[:at])
        answer = made(model_name=head["model_name"], id=head.get("id", ""))
        for item in head["outputs"]:
            size = item["parameters"]["binary_data_size"]
            answer.outputs.add(name=item["name"], datatype=item["datatype"], shape=item["shape"])
            answer.raw_output_contents.append(response.body[at : at + size])
            at += size
        return answer

    def array(self, listed: list[Any], item: Any) -> Any:
        from modelyard.serve.conform.tensor import from_json

        return from_json(listed, item.datatype, tuple(item.shape))


@pytest.fixture
def bridged(reference: Any, serve: Any) -> Iterator[Any]:
    grpc = pytest.importorskip("grpc")
    servers = []

    def start(*breaks: str) -> Client:
        served = reference()
        bridge = Bridge(served, grpc, breaks)
        handlers = {
            method: grpc.unary_unary_rpc_method_handler(
                lambda message, context, method=method: bridge.call(method, message, context),
                request_deserializer=messages()[asked].FromString,
                response_serializer=lambda value: value.SerializeToString(),
            )
            for method, (asked, _) in METHODS.items()
        }
        server = grpc.server(ThreadPoolExecutor(4))
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        servers.append(server)
        return Client(serve(served), grpc=f"127.0.0.1:{port}")

    yield start
    for server in servers:
        server.stop(0).wait()


@pytest.mark.parametrize(
    ("breaks", "found"),
    [((), set()), (("id",), {"grpc.id"}), (("status",), {"grpc.unknown-model"})],
)
def test_grpc_cases(bridged: Any, breaks: tuple[str, ...], found: set[str]) -> None:
    report = conform(bridged(*breaks), cases=GRPC)
    told = [(line.case.id, line.outcome.why) for line in report.failures()]
    assert {name for name, _ in told} == found, told
    assert report.count("not applicable") == 0
    for line in report.failures():
        assert report.request(line).startswith("grpcurl -plaintext -d '{")


def test_nobody_at_the_grpc_address(serve: Any, reference: Any) -> None:
    pytest.importorskip("grpc")
    client = Client(serve(reference()), grpc="127.0.0.1:1", timeout=2)
    assert conform(client, cases=GRPC[:1]).failures()[0].outcome.why.startswith("ServerLive: UNAVAILABLE")


def test_messages_are_the_wire_format_of_the_protocol() -> None:
    """Bytes that another implementation reads: field numbers and types, checked by hand."""
    made = messages()["ModelInferRequest"](model_name="m", id="7")
    made.inputs.add(name="x", datatype="FP32", shape=[1, 2])
    made.raw_input_contents.append(raw_bytes(Tensor("x", "FP32", from_raw(bytes(8), "FP32", (1, 2)))))
    assert made.SerializeToString() == (
        b"\x0a\x01m\x1a\x017\x2a\x0d\x0a\x01x\x12\x04FP32\x1a\x02\x01\x02\x3a\x08" + bytes(8)
    )


def test_grpc_lines_for_people() -> None:
    request = Request("GRPC", f"/{SERVICE}/ServerLive", b"{}", {"grpc-address": "a:1"})
    assert curl("http://a", request) == f"grpcurl -plaintext -d '{{}}' a:1 {SERVICE}/ServerLive"
