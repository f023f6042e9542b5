"""gRPC as its clients see it: a real service, the official `tritonclient.grpc`, hostile callers too."""

from __future__ import annotations

import asyncio
import gzip
import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import serve_yard as yard

from modelyard.core.errors import ServeError
from modelyard.core.poll import until
from modelyard.serve.conform.client import Client
from modelyard.serve.conform.grpc import GRPC
from modelyard.serve.conform.kit import conform
from modelyard.serve.options import Limits, ServeOptions
from modelyard.serve.reading import read_predictions
from modelyard.serve.service import start, stop

grpc = pytest.importorskip("grpc")
SERVICE = "/inference.GRPCInferenceService/"
# A proxy from the environment would take the traffic elsewhere.
DIRECT = [("grpc.enable_http_proxy", 0)]


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


class Place:
    """A store with two endpoints, and a service before it."""

    def __init__(self, folder: Path, **options: Any) -> None:
        self.yard = yard.Yard.make(folder)
        self.yard.serve(("mlp", "mixed"))
        self.state = folder / "state"
        self.port = free_port()
        self.options = options
        self.address = f"127.0.0.1:{self.port}"

    def start(self, *endpoints: str) -> Place:
        options = {"port": 0, "grpc_port": self.port} | self.options
        self.running = start(
            ServeOptions(
                state=self.state, root=self.yard.folder / "store", endpoints=endpoints or ("mlp", "mixed"),
                keys=self.yard.keys, **options,
            )
        )  # fmt: skip
        if options["grpc_port"] is not None:
            with grpc.insecure_channel(self.address, options=DIRECT) as channel:
                grpc.channel_ready_future(channel).result(timeout=15)
        return self

    def client(self) -> Any:
        import tritonclient.grpc as triton

        return triton.InferenceServerClient(self.address, channel_args=DIRECT)

    def call(self, method: str, data: bytes, **options: Any) -> bytes:
        with grpc.insecure_channel(self.address, options=DIRECT) as channel:
            answer: bytes = channel.unary_unary(SERVICE + method)(data, timeout=20, **options)
        return answer

    def refusal(self, method: str, data: bytes, **options: Any) -> tuple[str, str]:
        with pytest.raises(grpc.RpcError) as caught:
            self.call(method, data, **options)
        error: Any = caught.value
        return error.code().name, error.details()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    made = Place(tmp_path_factory.mktemp("grpc"), limits=Limits(body=1 << 20, elements=100_000))
    yield made.start()
    stop(made.state)


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Callable[..., Place]]:
    made: list[Place] = []

    def make(**options: Any) -> Place:
        made.append(Place(tmp_path, **options))
        return made[0]

    yield make
    for one in made:
        stop(one.state)


def tensors(kind: str, inputs: dict[str, np.ndarray]) -> list[Any]:
    import tritonclient.grpc as triton

    made = []
    for name, values in inputs.items():
        made.append(
            triton.InferInput(name, list(values.shape), "BYTES" if values.dtype == object else "FP32")
        )
        made[-1].set_data_from_numpy(values)
    return made


def request(kind: str = "mlp", seed: int = 1, **fields: Any) -> bytes:
    from tritonclient.grpc._utils import _get_inference_request

    made = _get_inference_request(
        fields.get("name", kind), tensors(kind, yard.rows_of(kind, 1, seed)), fields.get("version", ""),
        fields.get("id", ""), None, 0, False, False, 0, None, fields.get("parameters"),
    )  # fmt: skip
    return bytes(made.SerializeToString())


def test_the_sync_client(place: Place) -> None:
    import tritonclient.grpc as triton

    inputs = yard.rows_of("mlp", 5, seed=1)
    with place.client() as server:
        assert server.is_server_live() and server.is_server_ready()
        assert server.is_model_ready("mlp") and server.is_model_ready("mlp", "1")
        assert server.get_server_metadata().name == "modelyard"
        described = server.get_model_metadata("mixed")
        assert [(item.name, item.datatype, list(item.shape)) for item in described.inputs] == [
            ("size", "FP32", [-1, 1]), ("colour", "BYTES", [-1, 1]), ("note", "BYTES", [-1, 1]),
        ]  # fmt: skip
        wanted = [triton.InferRequestedOutput("probabilities")]
        for outputs in (None, wanted):
            answer = server.infer("mlp", tensors("mlp", inputs), request_id="r1", outputs=outputs,
                                  parameters={"key": "client"}, client_timeout=20)  # fmt: skip
            assert answer.get_response().id == "r1"
            np.testing.assert_allclose(
                answer.as_numpy("probabilities"), yard.answers_of(yard.mlp(), inputs), rtol=1e-4, atol=1e-6
            )
        texts = yard.rows_of("mixed", 3, seed=2)
        found = server.infer("mixed", tensors("mixed", texts), model_version="1").as_numpy("prediction")
        np.testing.assert_allclose(found, yard.answers_of(yard.mixed(), texts), rtol=1e-5)


def test_what_is_asked_over_grpc_is_logged_and_counted(place: Place) -> None:
    place.call("ModelInfer", request("mixed", id="logged-1"))

    def logged() -> bool:
        return "logged-1" in read_predictions(place.state, "mixed")["id"].to_pylist()

    assert until(logged)
    sent = {"feedback": [{"id": "logged-1", "value": 1.0}]}
    answer = httpx.post(f"{place.running.url}/feedback/mixed", json=sent).json()
    assert answer == {"accepted": 1, "unknown": 0}


def test_many_at_once_each_hears_its_own(place: Place) -> None:
    import tritonclient.grpc.aio as triton

    rows = {kind: yard.rows_of(kind, 200, seed=3) for kind in ("mlp", "mixed")}
    want = {
        "mlp": yard.answers_of(yard.mlp(), rows["mlp"]),
        "mixed": yard.answers_of(yard.mixed(), rows["mixed"]),
    }
    output = {"mlp": "probabilities", "mixed": "prediction"}

    async def ask(server: Any, kind: str, index: int) -> None:
        one = {name: values[index : index + 1] for name, values in rows[kind].items()}
        answer = await server.infer(kind, tensors(kind, one), request_id=f"{kind}-{index}")
        assert answer.get_response().id == f"{kind}-{index}"
        np.testing.assert_allclose(
            answer.as_numpy(output[kind]), want[kind][index : index + 1], rtol=1e-4, atol=1e-6
        )

    async def everyone() -> None:
        async with triton.InferenceServerClient(place.address, channel_args=DIRECT) as server:
            assert await server.is_server_live()
            await asyncio.gather(*(ask(server, kind, index) for index in range(200) for kind in rows))

    asyncio.run(everyone())


def test_the_conformance_kit(place: Place) -> None:
    report = conform(Client(place.running.url, grpc=place.address, timeout=20), cases=GRPC)
    assert [(line.case.id, line.outcome.why) for line in report.failures()] == []


BAD: dict[str, tuple[str, Callable[[], bytes], str, str]] = {
    "no message": ("ModelInfer", lambda: b"\xff\xff\xff", "INVALID_ARGUMENT", "message"),
    "no message elsewhere": ("ModelMetadata", lambda: b"\x0a\xff", "INVALID_ARGUMENT", "message"),
    "cut": ("ModelInfer", lambda: request()[:-1], "INVALID_ARGUMENT", "message"),
    "empty": ("ModelInfer", lambda: b"", "INVALID_ARGUMENT", "model_name"),
    "unknown model": ("ModelInfer", lambda: request(name="mpl"), "NOT_FOUND", "did you mean 'mlp'"),
    "unknown version": ("ModelInfer", lambda: request(version="9"), "NOT_FOUND", "version"),
    "another's input": ("ModelInfer", lambda: request(name="mixed"), "INVALID_ARGUMENT", "size"),
    "very many parts": ("ModelInfer", lambda: b"\x2a\x00" * 100_000, "RESOURCE_EXHAUSTED", "parts"),
    "too large": ("ModelInfer", lambda: bytes(2 << 20), "RESOURCE_EXHAUSTED", "larger"),
    "unknown metadata": ("ModelMetadata", lambda: b"\x0a\x01z", "NOT_FOUND", "z"),
    "unknown method": ("ModelBurn", lambda: b"", "UNIMPLEMENTED", "method"),
    "no shared memory": ("SystemSharedMemoryRegister", lambda: b"", "UNIMPLEMENTED", "method"),
    "a bomb": ("ModelInfer", lambda: gzip.compress(bytes(64 << 20)), "RESOURCE_EXHAUSTED", "unpacks"),
    "damaged gzip": ("ModelInfer", lambda: gzip.compress(request())[:-9], "INVALID_ARGUMENT", "cut short"),
    "twice packed": (
        "ModelInfer",
        lambda: gzip.compress(gzip.compress(request())),
        "INVALID_ARGUMENT",
        "message",
    ),
    "load of nothing": ("RepositoryModelLoad", lambda: b"", "INVALID_ARGUMENT", "model_name"),
    "load of a path": ("RepositoryModelLoad", lambda: b"\x12\x0b../../etc/x", "NOT_FOUND", "name"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_calls_hear_why(place: Place, name: str) -> None:
    method, make, code, word = BAD[name]
    found, details = place.refusal(method, make())
    assert (found, word in details) == (code, True), details


@pytest.mark.parametrize("packing", ["Gzip", "Deflate"])
def test_compressed_messages_are_read_within_the_limits(place: Place, packing: str) -> None:
    compression = getattr(grpc.Compression, packing)
    many = {"x": np.repeat(yard.rows_of("mlp", 1, seed=1)["x"], 500, axis=0)}
    data = _of(many)
    assert len(data) > 100_000
    answer = place.call("ModelInfer", data, compression=compression)
    assert len(answer) > 500 * 40
    assert place.call("ServerLive", b"", compression=compression) == b"\x08\x01"
    before = resident(place.running.pid)
    # Of sixty-four megabytes of zeros 64 kB are sent, and a megabyte is the limit.
    assert place.refusal("ModelInfer", bytes(64 << 20), compression=compression)[0] == "RESOURCE_EXHAUSTED"
    assert resident(place.running.pid) - before < 24 << 20


def resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096


def _of(inputs: dict[str, np.ndarray]) -> bytes:
    from tritonclient.grpc._utils import _get_inference_request

    made = _get_inference_request("mlp", tensors("mlp", inputs), "", "", None, 0, False, False, 0, None, None)
    return bytes(made.SerializeToString())


def test_a_deadline_that_has_passed(place: Place) -> None:
    with grpc.insecure_channel(place.address, options=DIRECT) as channel:
        grpc.channel_ready_future(channel).result(timeout=10)
        with pytest.raises(grpc.RpcError) as caught:
            channel.unary_unary(SERVICE + "ModelInfer")(request(), timeout=-1)
    error: Any = caught.value
    assert error.code().name == "DEADLINE_EXCEEDED"
    assert place.refusal("ModelInfer", _late())[0] == "DEADLINE_EXCEEDED"


def _late() -> bytes:
    """A request whose own timeout of a microsecond has passed when it is read."""
    from tritonclient.grpc._utils import _get_inference_request

    inputs = tensors("mlp", yard.rows_of("mlp", 1))
    made = _get_inference_request("mlp", inputs, "", "", None, 0, False, False, 0, 1, None)
    return bytes(made.SerializeToString())


def test_cancelled_calls_leave_nothing_behind(place: Place) -> None:
    with grpc.insecure_channel(place.address, options=DIRECT) as channel:
        ask = channel.unary_unary(SERVICE + "ModelInfer")
        calls = [ask.future(request(seed=seed), timeout=20) for seed in range(50)]
        for call in calls[::2]:
            call.cancel()
        answers = [call.result(timeout=20) for call in calls[1::2]]
    assert len(answers) == 25
    place.call("ModelInfer", request())


def test_the_repository(fresh: Callable[..., Place]) -> None:
    from tritonclient.utils import InferenceServerException

    place = fresh().start("mlp")
    with place.client() as server:
        with pytest.raises(InferenceServerException, match="no such endpoint"):
            server.is_model_ready("mixed")
        server.load_model("mixed")
        assert server.is_model_ready("mixed")
        index = server.get_model_repository_index().models
        assert sorted((item.name, item.version, item.state) for item in index) == [
            ("mixed", "1", "READY"), ("mlp", "1", "READY"),
        ]  # fmt: skip
        server.unload_model("mixed")
        with pytest.raises(InferenceServerException):
            server.infer("mixed", tensors("mixed", yard.rows_of("mixed", 1)))
        with pytest.raises(InferenceServerException, match="parameters"):
            server.load_model("mlp", config="{}")


def test_workers_share_the_port_and_a_killed_one_is_replaced(fresh: Callable[..., Place]) -> None:
    place = fresh(workers=2).start()
    children = Path(f"/proc/{place.running.pid}/task/{place.running.pid}/children")

    def workers() -> list[int]:
        return [int(pid) for pid in children.read_text().split()]

    def answered() -> bool:
        try:
            return place.call("ServerReady", b"") == b"\x08\x01"
        except grpc.RpcError:
            return False

    assert until(lambda: len(workers()) == 2 and all(answered() for _ in range(8)))
    first = workers()[0]
    os.kill(first, signal.SIGKILL)
    assert until(lambda: len(workers()) == 2 and first not in workers())
    assert until(lambda: all(answered() for _ in range(8)))
    for seed in range(10):
        place.call("ModelInfer", request(seed=seed))


def test_a_port_that_is_taken_is_said(fresh: Callable[..., Place]) -> None:
    place = fresh()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", place.port))
        taken.listen(1)
        with pytest.raises(ServeError, match=str(place.port)):
            place.start()


def test_tokens(fresh: Callable[..., Place]) -> None:
    from modelyard.serve.access.token import new_token
    from modelyard.serve.access.token_file import add_token, token_path

    place = fresh(tokens=True)
    place.state.mkdir()
    texts = {}
    for role in ("predict", "operate"):
        token, texts[role] = new_token(role, (role,), created="2026-01-02T03:04:05Z")
        add_token(token_path(place.state), token)
    place.start()

    def bearer(text: str) -> Any:
        return [("authorization", f"Bearer {text}")]

    assert place.call("ServerLive", b"") == b"\x08\x01"
    assert place.refusal("ModelInfer", request())[0] == "UNAUTHENTICATED"
    assert place.refusal("ModelInfer", request(), metadata=bearer("mdy.a.b"))[0] == "UNAUTHENTICATED"
    assert place.refusal("ModelInfer", request(), metadata=bearer(texts["operate"]))[0] == "PERMISSION_DENIED"
    assert place.call("ModelInfer", request(), metadata=bearer(texts["predict"]))
    load = b"\x12\x03mlp"
    assert (
        place.refusal("RepositoryModelLoad", load, metadata=bearer(texts["predict"]))[0]
        == "PERMISSION_DENIED"
    )
    assert place.call("RepositoryModelLoad", load, metadata=bearer(texts["operate"])) == b""


def test_without_a_port_nothing_of_grpc_is_loaded(fresh: Callable[..., Place]) -> None:
    place = fresh(grpc_port=None).start("mlp")
    maps = Path(f"/proc/{place.running.pid}/maps").read_text()
    assert "onnxruntime" in maps and "grpc" not in maps
