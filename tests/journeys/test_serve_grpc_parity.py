"""What holds over HTTP holds over gRPC: limits, roles, traces, metrics, cancellation, drain; and streams."""

from __future__ import annotations

import asyncio
import json
import os
import queue
import re
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from modelyard.core.poll import until
from modelyard.serve.access.token import new_token
from modelyard.serve.access.token_file import add_token, token_path
from modelyard.serve.options import Limits
from modelyard.serve.service import stop

grpc = pytest.importorskip("grpc")
SERVICE = "/inference.GRPCInferenceService/"
# A proxy from the environment would take the traffic elsewhere.
DIRECT = [("grpc.enable_http_proxy", 0)]
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def metric(url: str, pattern: str) -> float:
    found = re.search(pattern + r"\S* ([0-9.e+-]+)$", httpx.get(f"{url}/metrics").text, re.MULTILINE)
    return float(found[1]) if found else 0.0


def address(made: Any) -> str:
    return f"127.0.0.1:{made.options.grpc_port}"


def channel(made: Any) -> Any:
    opened = grpc.insecure_channel(address(made), options=DIRECT)
    grpc.channel_ready_future(opened).result(timeout=20)
    return opened


def client(made: Any) -> Any:
    import tritonclient.grpc as triton

    return triton.InferenceServerClient(address(made), channel_args=DIRECT)


def tensors(inputs: dict[str, np.ndarray]) -> list[Any]:
    import tritonclient.grpc as triton

    made = []
    for name, values in inputs.items():
        kind = "BYTES" if values.dtype == object else "FP32"
        made.append(triton.InferInput(name, list(values.shape), kind))
        made[-1].set_data_from_numpy(values)
    return made


def request(made: Any, kind: str, items: int = 1, identity: str = "") -> bytes:
    from tritonclient.grpc._utils import _get_inference_request

    inputs = tensors(made.module.rows_of(kind, items, seed=3))
    asked = _get_inference_request(kind, inputs, "", identity, None, 0, False, False, 0, None, None)
    return bytes(asked.SerializeToString())


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, serve_on: Callable[..., Any]) -> Iterator[Any]:
    folder = tmp_path_factory.mktemp("grpc-parity")
    serving = serve_on(folder, grpc_port=free_port(), access_log=True, limits=Limits(body_seconds=1.0))
    channel(serving).close()
    yield serving
    stop(serving.state)


def test_a_stream_of_the_sync_client(made: Any) -> None:
    heard: queue.Queue[tuple[Any, Any]] = queue.Queue()
    rows = made.module.rows_of("mlp", 100, seed=4)["x"]
    want = made.module.answers_of(made.module.mlp(), {"x": rows})
    with client(made) as server:
        server.start_stream(lambda result, error: heard.put((result, error)))
        for index in range(100):
            name = "nobody" if index % 10 == 9 else "mlp"
            server.async_stream_infer(name, tensors({"x": rows[index : index + 1]}), request_id=str(index),
                                      enable_empty_final_response=True)  # fmt: skip
        answers = [heard.get(timeout=20) for _ in range(100)]
        server.stop_stream()
    good = [result for result, error in answers if error is None]
    errors = [error for _, error in answers if error is not None]
    assert len(good) == 90 and len(errors) == 10 and "no such endpoint" in str(errors[0])
    for result in good:
        index = int(result.get_response().id)
        np.testing.assert_allclose(
            result.as_numpy("probabilities"), want[index : index + 1], rtol=1e-4, atol=1e-6
        )
        assert result.get_response().parameters["triton_final_response"].bool_param


def test_a_stream_of_the_async_client_with_texts(made: Any) -> None:
    import tritonclient.grpc.aio as triton

    rows = made.module.rows_of("mixed", 20, seed=5)
    want = made.module.answers_of(made.module.mixed(), rows)

    async def asked() -> Any:
        for index in range(20):
            one = {name: values[index : index + 1] for name, values in rows.items()}
            yield {"model_name": "mixed", "inputs": tensors(one), "request_id": str(index)}

    async def run() -> list[tuple[int, Any]]:
        async with triton.InferenceServerClient(address(made), channel_args=DIRECT) as server:
            found = []
            async for result, error in server.stream_infer(asked()):
                assert error is None
                found.append((int(result.get_response().id), result.as_numpy("prediction")))
            return found

    found = dict(asyncio.run(run()))
    np.testing.assert_allclose(np.concatenate([found[i] for i in range(20)]), want, rtol=1e-5)


def test_what_is_wrong_in_a_stream_is_answered_there(made: Any) -> None:
    from tritonclient.grpc import service_pb2

    good = request(made, "mlp", identity="after")
    sent = [b"\xff\xff", b"", good[:-1], b"\x1f\x8b\x08damaged", b"\x78\x9cno", good]
    with channel(made) as opened:
        answers = list(opened.stream_stream(SERVICE + "ModelStreamInfer")(iter(sent), timeout=20))
    read = [service_pb2.ModelStreamInferResponse.FromString(answer) for answer in answers]
    assert sum(bool(item.error_message) for item in read) == 5
    assert [item.infer_response.id for item in read if not item.error_message] == ["after"]


def test_configuration_and_statistics_over_both_doors(made: Any) -> None:
    import tritonclient.http as over_http

    place = made.url.partition("://")[2]
    with client(made) as server, over_http.InferenceServerClient(place) as web:
        before = server.get_inference_statistics("mlp", "1").model_stats[0]
        for count in (1, 3):
            server.infer("mlp", tensors(made.module.rows_of("mlp", count, seed=1)))
        after = server.get_inference_statistics("mlp", "1").model_stats[0]
        assert after.inference_count - before.inference_count == 4
        assert after.inference_stats.success.count - before.inference_stats.success.count == 2
        assert after.inference_stats.success.ns > 0 and after.execution_count > 0
        as_json = server.get_inference_statistics("mlp", as_json=True)["model_stats"][0]
        on_web = web.get_inference_statistics("mlp", "1")["model_stats"][0]
        assert {key: str(on_web[key]) for key in ("name", "inference_count")} == {
            key: as_json[key] for key in ("name", "inference_count")
        }
        assert {item.name for item in server.get_inference_statistics().model_stats} == {"mlp", "mixed"}
        assert {item["name"] for item in web.get_inference_statistics()["model_stats"]} == {"mlp", "mixed"}
        config = server.get_model_config("mixed", as_json=True)["config"]
        on_web = web.get_model_config("mixed", "1")
        assert config["input"][1] == {"name": "colour", "data_type": "TYPE_STRING", "dims": ["1"]}
        assert [item["data_type"] for item in config["input"]] == [
            item["data_type"] for item in on_web["input"]
        ]
        assert config["max_batch_size"] == on_web["max_batch_size"] == Limits().rows
        for ask in (server.get_model_config, server.get_inference_statistics, web.get_model_config):
            with pytest.raises(Exception, match="no such endpoint"):
                ask("nobody")


@pytest.mark.parametrize("compression", ["gzip", "deflate"])
def test_compression_of_the_official_clients(made: Any, compression: str) -> None:
    import tritonclient.grpc.aio as triton

    inputs = made.module.rows_of("mixed", 40, seed=6)
    want = made.module.answers_of(made.module.mixed(), inputs)
    with client(made) as server:
        found = server.infer("mixed", tensors(inputs), compression_algorithm=compression)
        np.testing.assert_allclose(found.as_numpy("prediction"), want, rtol=1e-5)

    async def run() -> Any:
        async with triton.InferenceServerClient(address(made), channel_args=DIRECT) as server:
            return await server.infer("mixed", tensors(inputs), compression_algorithm=compression)

    np.testing.assert_allclose(asyncio.run(run()).as_numpy("prediction"), want, rtol=1e-5)


def test_a_call_is_counted_logged_and_traced(made: Any) -> None:
    pattern = r'modelyard_grpc_responses_total\{method="%s",code="%s"'
    before = metric(made.url, pattern % ("ModelInfer", "OK"))
    with channel(made) as opened:
        ask = opened.unary_unary(SERVICE + "ModelInfer")
        _, call = ask.with_call(request(made, "mlp", identity="traced-1"), timeout=20,
                                metadata=[("traceparent", TRACE)])  # fmt: skip
        spoken = dict(call.trailing_metadata())["traceresponse"].split("-")
        assert spoken[1] == TRACE.split("-")[1] and spoken[2] != TRACE.split("-")[2]
        _, call = ask.with_call(request(made, "mlp"), timeout=20, metadata=[("traceparent", "wrong")])
        assert "traceresponse" not in dict(call.trailing_metadata())
        with pytest.raises(grpc.RpcError):
            ask(b"\xff", timeout=20)
        with pytest.raises(grpc.RpcError):
            opened.unary_unary(SERVICE + "Nothing/../../etc")(b"", timeout=20)
    assert metric(made.url, pattern % ("ModelInfer", "OK")) == before + 2
    assert metric(made.url, pattern % ("ModelInfer", "INVALID_ARGUMENT")) >= 1
    assert metric(made.url, pattern % ("other", "UNIMPLEMENTED")) >= 1
    assert until(lambda: "traced-1" in made.log())
    line = next(json.loads(line) for line in made.log().splitlines() if "traced-1" in line)
    assert (line["route"], line["method"], line["status"]) == (SERVICE + "ModelInfer", "gRPC", 200)
    assert (line["trace"], line["span"], line["endpoint"]) == (spoken[1], spoken[2], "mlp")
    assert "/etc" not in made.log()


def test_a_message_that_does_not_come_is_not_waited_for(made: Any) -> None:
    held = threading.Event()

    def nothing() -> Iterator[bytes]:
        held.wait(30)
        yield from ()

    with channel(made) as opened:
        began = time.monotonic()
        with pytest.raises(grpc.RpcError) as caught:
            opened.stream_unary(SERVICE + "ModelInfer")(nothing(), timeout=25)
        error: Any = caught.value
        assert error.code().name == "DEADLINE_EXCEEDED" and "did not arrive" in error.details()
        assert time.monotonic() - began < 15
        held.set()
        with pytest.raises(grpc.RpcError) as caught:
            opened.stream_unary(SERVICE + "ModelInfer")(iter(()), timeout=20)
        error = caught.value
        assert error.code().name == "INVALID_ARGUMENT"


HOSTILE: dict[str, tuple[Callable[[Any], None], str]] = {
    "shapes past 2^63": (lambda made: made.inputs[0].shape.extend([2**62, 2**62, 4]), "shape"),
    "negative": (lambda made: made.inputs[0].shape.__setitem__(0, -1), "shape"),
    "most negative": (lambda made: made.inputs[0].shape.__setitem__(0, -(2**63)), "shape"),
    "datatype": (lambda made: setattr(made.inputs[0], "datatype", "fp32"), "datatype"),
    "long datatype": (lambda made: setattr(made.inputs[0], "datatype", "F" * 100_000), "datatype"),
    "both": (lambda made: made.inputs[0].contents.fp32_contents.append(1), "twice"),
    "raw count": (lambda made: made.raw_input_contents.append(b""), "raw_input_contents"),
    "raw length": (lambda made: made.raw_input_contents.__setitem__(0, bytes(255)), "raw_input_contents[0]"),
    "long name": (lambda made: setattr(made, "model_name", "x" * 500_000), "endpoint"),
    "shared memory": (lambda made: made.inputs[0].parameters["shared_memory_region"].__setattr__(
        "string_param", "/etc/passwd"), "shared memory"),
    "a sequence": (lambda made: made.parameters["sequence_id"].__setattr__("int64_param", 7), "sequence_id"),
    "output": (lambda made: made.outputs.add(name="nothing"), "output"),
    "rank": (lambda made: made.inputs[0].shape.extend([1] * 100), "shape"),
    "timeout": (lambda made: made.parameters["timeout"].__setattr__("double_param", 1.5), "timeout"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_messages_hear_why(made: Any, name: str) -> None:
    from tritonclient.grpc import service_pb2

    edit, word = HOSTILE[name]
    message = service_pb2.ModelInferRequest.FromString(request(made, "mlp"))
    edit(message)
    with channel(made) as opened, pytest.raises(grpc.RpcError) as caught:
        opened.unary_unary(SERVICE + "ModelInfer")(message.SerializeToString(), timeout=20)
    error: Any = caught.value
    assert error.code().name in ("INVALID_ARGUMENT", "RESOURCE_EXHAUSTED", "NOT_FOUND"), error.details()
    assert word in error.details()


def test_unknown_fields_and_nested_groups(made: Any) -> None:
    message = request(made, "mlp")
    with channel(made) as opened:
        ask = opened.unary_unary(SERVICE + "ModelInfer")
        assert ask(message + b"\xa2\x06\x03new", timeout=20)
        deep = b"\xa3\x06" * 10_000
        for hostile in (deep, message + deep, b"\x22" + b"\xff" * 9 + b"\x01", message + b"\x9b"):
            with pytest.raises(grpc.RpcError) as caught:
                ask(hostile, timeout=20)
            error: Any = caught.value
            assert error.code().name in ("INVALID_ARGUMENT", "RESOURCE_EXHAUSTED"), error.details()


def test_what_nobody_waits_for_is_not_run(serving: Callable[..., Any]) -> None:
    # No more calls than these at a time: those that were dropped must not count.
    made = serving("cnn", known=("cnn",), grpc_port=free_port(), limits=Limits(queue=1_000))
    data = request(made, "cnn", items=16)
    with channel(made) as opened:
        ask = opened.unary_unary(SERVICE + "ModelInfer")
        hasty = set()

        def gone() -> bool:
            """Forty ask, one with no patience behind them, and all but two leave."""
            calls = [ask.future(data, timeout=60) for _ in range(40)]
            late = ask.future(data, timeout=0.02)
            hasty.add("OK" if late.exception(timeout=60) is None else late.code().name)
            for call in calls[2:]:
                call.cancel()
            assert all(call.result(timeout=60) for call in calls[:2])
            dropped = metric(made.url, r'modelyard_shed_total\{.*why="gone"') >= 1
            return dropped and metric(made.url, r'modelyard_grpc_responses_total\{.*code="CANCELLED"') >= 1

        # On a busy machine all forty may be answered before this process has its turn again.
        assert until(lambda: gone() and hasty != {"OK"}, seconds=60.0)
        assert hasty <= {"DEADLINE_EXCEEDED", "UNAVAILABLE", "OK"}
        before = metric(made.url, r'modelyard_shed_total\{.*why="gone"')

        def left() -> bool:
            """A stream whose client leaves: what it asked is dropped too, where that is in time."""
            waiting = threading.Event()

            def asked() -> Iterator[bytes]:
                yield from (data for _ in range(8))
                waiting.wait(30)

            stream = opened.stream_stream(SERVICE + "ModelStreamInfer")(asked(), timeout=60)
            next(stream)
            stream.cancel()
            waiting.set()
            return metric(made.url, r'modelyard_shed_total\{.*why="gone"') > before

        assert until(left, seconds=60.0)
        assert ask(data, timeout=60)


def test_a_full_queue_refuses_with_a_hint(serving: Callable[..., Any]) -> None:
    made = serving("cnn", known=("cnn",), grpc_port=free_port(), limits=Limits(queue=8))
    with channel(made) as opened:
        ask = opened.unary_unary(SERVICE + "ModelInfer")
        data = request(made, "cnn")
        calls = [ask.future(data, timeout=60) for _ in range(60)]
        codes = [call.exception(timeout=60) and call.code().name for call in calls]
        refused = [call for call in calls if call.code().name != "OK"]
        assert "OK" in [call.code().name for call in calls] and refused, codes
        for call in refused:
            assert call.code().name in ("UNAVAILABLE", "RESOURCE_EXHAUSTED"), call.details()
            assert int(dict(call.trailing_metadata())["grpc-retry-pushback-ms"]) >= 1


def test_a_rate_is_for_requests_however_they_come(serving: Callable[..., Any]) -> None:
    from tritonclient.grpc import service_pb2

    texts: list[str] = []

    def before(state: Path) -> None:
        token, text = new_token("a", ("predict",), created="2026-01-02T03:04:05Z", rate=0.1, burst=4)
        add_token(token_path(state), token)
        texts.append(text)

    made = serving("mlp", grpc_port=free_port(), tokens=True, before=before)
    bearer = [("authorization", f"Bearer {texts[0]}")]
    data = request(made, "mlp")
    with channel(made) as opened:
        stream = opened.stream_stream(SERVICE + "ModelStreamInfer")
        answers = [
            service_pb2.ModelStreamInferResponse.FromString(answer)
            for answer in stream(iter([data] * 6), timeout=20, metadata=bearer)
        ]
        assert sum("too many requests" in answer.error_message for answer in answers) == 2
        with pytest.raises(grpc.RpcError) as caught:
            opened.unary_unary(SERVICE + "ModelInfer")(data, timeout=20, metadata=bearer)
        error: Any = caught.value
        assert error.code().name == "RESOURCE_EXHAUSTED"
        assert int(dict(error.trailing_metadata())["grpc-retry-pushback-ms"]) > 1_000
        with pytest.raises(grpc.RpcError) as caught:
            list(stream(iter([data]), timeout=20))
        error = caught.value
        assert error.code().name == "UNAUTHENTICATED"


def test_what_is_in_work_is_finished_when_the_service_ends(serving: Callable[..., Any]) -> None:
    made = serving("cnn", known=("cnn",), grpc_port=free_port())
    data = request(made, "cnn", items=16)
    held = threading.Event()

    def asked() -> Iterator[bytes]:
        yield data
        held.wait(30)

    with channel(made) as opened:
        stream = opened.stream_stream(SERVICE + "ModelStreamInfer")(asked(), timeout=60)
        assert next(stream)
        calls = [opened.unary_unary(SERVICE + "ModelInfer").future(data, timeout=60) for _ in range(4)]
        assert until(lambda: metric(made.url, "modelyard_waiting_items") > 0 or calls[-1].done())
        os.kill(made.running.pid, signal.SIGTERM)
        assert all(call.result(timeout=60) for call in calls)
        with pytest.raises(grpc.RpcError) as caught:
            next(stream)
        error: Any = caught.value
        assert error.code().name == "UNAVAILABLE" and "draining" in error.details()
        held.set()
    assert until(lambda: "ended with 0 requests open" in made.log())
