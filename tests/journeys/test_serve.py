"""The service as its clients see it: a real process, unmodified clients, hostile ones too."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import serve_yard as yard

from modelyard.core.errors import ServeError
from modelyard.core.poll import until
from modelyard.release.key import signing_key
from modelyard.release.policy import Canary, Shadow, Single
from modelyard.serve.options import Limits, ServeOptions
from modelyard.serve.reading import read_feedback, read_predictions
from modelyard.serve.service import Running, running, start, stop


class Place:
    """A yard and the service before it."""

    def __init__(self, folder: Path, **options: Any) -> None:
        self.yard = yard.Yard.make(folder)
        self.state = folder / "state"
        self.options = options
        self.running: Running | None = None

    def start(self, *endpoints: str) -> str:
        options = ServeOptions(
            state=self.state, root=self.yard.folder / "store", endpoints=endpoints or ("mlp", "mixed"),
            keys=self.yard.keys, **({"port": 0} | self.options),
        )  # fmt: skip
        self.running = start(options)
        return self.running.url

    @property
    def url(self) -> str:
        assert self.running is not None
        return self.running.url

    def metric(self, pattern: str) -> float:
        text = httpx.get(f"{self.url}/metrics").text
        return sum(float(line.rpartition(" ")[2]) for line in text.splitlines() if re.match(pattern, line))

    def generation(self, endpoint: str) -> int:
        health = httpx.get(f"{self.url}/v2/health").json()
        return int(health["endpoints"][endpoint].get("generation", 0))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    made = Place(
        tmp_path_factory.mktemp("serve"), limits=Limits(body=1 << 20, elements=100_000, body_seconds=2)
    )
    made.yard.serve(("mlp", "mixed"))
    made.start()
    yield made
    stop(made.state)


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    yield made
    stop(made.state)


def expected(kind: str, graph: bytes, inputs: dict[str, np.ndarray]) -> np.ndarray:
    return np.asarray(yard.answers_of(graph, inputs))


def client(url: str) -> Any:
    import tritonclient.http as triton

    return triton.InferenceServerClient(url.removeprefix("http://"))


@pytest.mark.parametrize("binary", [True, False])
def test_tritonclient_numbers(place: Place, binary: bool) -> None:
    import tritonclient.http as triton

    inputs = yard.rows_of("mlp", 5, seed=1)
    with client(place.url) as server:
        assert server.is_server_live() and server.is_server_ready() and server.is_model_ready("mlp")
        assert server.is_model_ready("mlp", "1")
        assert server.get_server_metadata()["name"] == "modelyard"
        assert server.get_model_metadata("mlp")["inputs"] == [
            {"name": "x", "datatype": "FP32", "shape": [-1, 64]}
        ]
        tensor = triton.InferInput("x", [5, 64], "FP32")
        tensor.set_data_from_numpy(inputs["x"], binary_data=binary)
        wanted = [triton.InferRequestedOutput("probabilities", binary_data=binary)]
        for outputs in (wanted, None):
            answer = server.infer("mlp", [tensor], request_id="r1", outputs=outputs)
            assert answer.get_response()["id"] == "r1"
            found = answer.as_numpy("probabilities")
            np.testing.assert_allclose(found, expected("mlp", yard.mlp(), inputs), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("binary", [True, False])
def test_tritonclient_texts(place: Place, binary: bool) -> None:
    import tritonclient.http as triton

    inputs = yard.rows_of("mixed", 3, seed=1)
    inputs["size"][1] = np.nan
    tensors = []
    for name, values in inputs.items():
        tensors.append(
            triton.InferInput(name, list(values.shape), "BYTES" if values.dtype == object else "FP32")
        )
        tensors[-1].set_data_from_numpy(values, binary_data=binary)
    with client(place.url) as server:
        found = server.infer("mixed", tensors, model_version="1").as_numpy("prediction")
    np.testing.assert_allclose(found, expected("mixed", yard.mixed(), inputs), rtol=1e-5)


def test_tritonclient_hears_the_reason(place: Place) -> None:
    import tritonclient.http as triton
    from tritonclient.utils import InferenceServerException

    tensor = triton.InferInput("x", [1, 63], "FP32")
    tensor.set_data_from_numpy(np.zeros((1, 63), np.float32))
    with client(place.url) as server:
        with pytest.raises(InferenceServerException, match="wrong shape"):
            server.infer("mlp", [tensor])
        with pytest.raises(InferenceServerException, match="did you mean 'mlp'"):
            server.infer("mpl", [tensor])


def test_plain_rows_feedback_and_log(place: Place) -> None:
    rows = [{"size": 3, "colour": "green", "note": "call me"}, {"size": None, "colour": "mauve"}]
    answer = httpx.post(f"{place.url}/predict/mixed", json={"rows": rows, "id": "order-1"}).json()
    assert answer["id"] == "order-1" and answer["version"] == "1"
    assert [item["id"] for item in answer["predictions"]] == ["order-1.0", "order-1.1"]
    assert answer["predictions"][0]["prediction"] == 4.0
    sent = {"feedback": [{"id": "order-1.0", "value": 4.5}, {"id": "never", "value": 1}]}
    assert httpx.post(f"{place.url}/feedback/mixed", json=sent).json() == {"accepted": 2, "unknown": 1}
    told = read_feedback(place.state, "mixed").to_pylist()
    assert [(item["id"], item["value"]) for item in told] == [("order-1.0", 4.5), ("never", 1.0)]

    def logged() -> list[dict[str, Any]]:
        table = read_predictions(place.state, "mixed")
        return [row for row in table.to_pylist() if row["id"].startswith("order-1")]

    assert until(lambda: len(logged()) == 2)
    first, second = logged()
    assert (first["outcome"], first["arm"], first["prediction"]) == ("ok", "primary", 4.0)
    assert (first["in_size"], first["in_colour"], first["breaches"]) == (3.0, "green", [])
    assert second["in_size"] is None and second["breaches"] == ["colour: category"]
    # The note is personal: it is never written down.
    assert "in_note" not in first
    assert until(lambda: place.metric(r'modelyard_contract_breaches_total\{.*column="colour"') >= 1)


BAD_BODIES: dict[str, tuple[str, bytes, str]] = {
    "no JSON": ("/predict/mixed", b"{", "JSON"),
    "wrong type": ("/predict/mixed", b'{"rows": [{"size": "3"}]}', "size"),
    "missing column": ("/predict/mixed", b'{"rows": [{"size": 3}]}', "colour"),
    "unknown column": ("/predict/mixed", b'{"rows": [{"sice": 3, "colour": "red"}]}', "did you mean 'size'"),
    "unknown label": ("/feedback/mlp", b'{"feedback": [{"id": "a", "label": "z"}]}', "label"),
    "no value": ("/feedback/mixed", b'{"feedback": [{"id": "a", "value": null}]}', "value"),
    "value of a label": ("/feedback/mixed", b'{"feedback": [{"id": "a", "label": "b"}]}', "label"),
    "feedback for nobody": ("/feedback/none", b'{"feedback": []}', "endpoint"),
    "missing input": ("/v2/models/mixed/infer", b'{"inputs": [{"name": "size", "datatype": "FP32", '
                      b'"shape": [1, 1], "data": [1]}]}', "colour"),
    "wrong datatype": ("/v2/models/mlp/infer", b'{"inputs": [{"name": "x", "datatype": "INT32", '
                       b'"shape": [1, 1], "data": [1]}]}', "datatype"),
    "unknown input": ("/v2/models/mlp/infer", b'{"inputs": [{"name": "x", "datatype": "FP32", '
                      b'"shape": [1, 64], "data": [' + b"1," * 63 + b'1]}, {"name": "y", "datatype": "FP32", '
                      b'"shape": [1], '
                      b'"data": [1]}]}', "'y'"),
    "unknown output": ("/v2/models/mlp/infer", b'{"outputs": [{"name": "p"}], "inputs": [{"name": "x", '
                       b'"datatype": "FP32", "shape": [1, 64], "data": [' + b"1," * 63 + b"1]}]}", "output"),
    "overflow": ("/v2/models/mlp/infer", b'{"inputs": [{"name": "x", "datatype": "FP32", '
                 b'"shape": [4294967296, 4294967296], "data": []}]}', "large"),
    "unknown version": ("/v2/models/mlp/versions/9/infer", b'{"inputs": [{"name": "x", "datatype": "FP32", '
                        b'"shape": [1, 1], "data": [1]}]}', "version"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_BODIES)
def test_bad_input_gets_a_reason(place: Place, name: str) -> None:
    path, body, word = BAD_BODIES[name]
    answer = httpx.post(place.url + path, content=body)
    assert 400 <= answer.status_code < 500, answer.text
    assert word in answer.json()["error"]


def test_ways_that_do_not_exist(place: Place) -> None:
    assert httpx.get(f"{place.url}/v3/../etc/passwd").status_code == 404
    assert httpx.get(f"{place.url}/predict/mixed").status_code == 405
    assert httpx.post(f"{place.url}/v2/health/ready").status_code == 405
    assert httpx.get(f"{place.url}/v2/models/none").status_code == 404
    answer = httpx.post(f"{place.url}/predict/mixed", content=b"x", headers={"content-encoding": "br"})
    assert answer.status_code == 415
    answer = httpx.post(f"{place.url}/v2/models/mlp/infer", content=b"{}",
                        headers={"inference-header-content-length": "-1"})  # fmt: skip
    assert answer.status_code == 400


def _raw(url: str, data: bytes, *, seconds: float = 10.0, finish: bool = False) -> bytes:
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=seconds) as connection:
        parts = []
        try:
            connection.sendall(data)
            if finish:
                connection.shutdown(socket.SHUT_WR)
            while part := connection.recv(65_536):
                parts.append(part)
                if b"\r\n\r\n" in b"".join(parts) and not finish:
                    break
        except TimeoutError:
            raise
        except OSError:  # it was cut while we were sending.
            pass
        return b"".join(parts)


def test_hostile_connections(place: Place) -> None:
    post = b"POST /predict/mixed HTTP/1.1\r\nHost: a\r\n"
    big = _raw(place.url, post + b"Content-Length: 99999999999\r\n\r\n")
    assert b" 413 " in big.splitlines()[0]
    chunks = b"".join(b"40000\r\n" + b"x" * 0x40000 + b"\r\n" for _ in range(5)) + b"0\r\n\r\n"
    assert b" 413 " in _raw(place.url, post + b"Transfer-Encoding: chunked\r\n\r\n" + chunks).splitlines()[0]
    # More is announced than comes, and the client waits.
    assert b" 408 " in _raw(place.url, post + b"Content-Length: 100\r\n\r\n{").splitlines()[0]
    # More is announced than comes, and the client leaves.
    _raw(place.url, post + b"Content-Length: 100\r\n\r\n{", finish=True)
    for head in (b"Content-Length: -1", b"Content-Length: 1\r\nContent-Length: 2", b"Content-Length: x",
                 b"Content-Length: 1\r\nTransfer-Encoding: chunked"):  # fmt: skip
        answer = _raw(place.url, post + head + b"\r\n\r\n0\r\n\r\n", finish=True)
        assert not answer or b" 4" in answer.splitlines()[0], answer
    _raw(place.url, b"\x16\x03\x01\x02\x00" + bytes(200), finish=True)
    _raw(place.url, b"GET /" + b"a" * 1_000_000 + b" HTTP/1.1\r\n\r\n", finish=True)
    assert httpx.get(f"{place.url}/v2/health/ready").status_code == 200
    assert place.metric(r'modelyard_http_responses_total\{status="500"') == 0


def test_metrics_add_up(place: Place) -> None:
    httpx.post(f"{place.url}/predict/mixed", json={"rows": [{"size": 1, "colour": "red"}]})
    text = httpx.get(f"{place.url}/metrics").text
    series = r'modelyard_request_seconds_bucket\{endpoint="mixed".*outcome="ok",le="(.*)"\} (\d+)'
    counts = [int(count) for _, count in re.findall(series, text)]
    assert counts == sorted(counts)
    total = re.search(r'modelyard_request_seconds_count\{endpoint="mixed".*outcome="ok"\} (\d+)', text)
    assert total is not None and int(total[1]) == counts[-1] >= 1
    assert place.metric(r'modelyard_requests_total\{endpoint="mixed".*outcome="ok"') == counts[-1]


def test_swap_and_rollback_under_load(fresh: Place) -> None:
    """A new release, then a rollback: both seen within a second, and no request fails or mixes up."""
    first = fresh.yard.release("mixed", yard.mixed(1.0))
    second = fresh.yard.release("mixed", yard.mixed(2.0))
    fresh.yard.set("mixed", Single(first.digest))
    fresh.start("mixed")
    failures: list[str] = []
    answered: list[tuple[float, str]] = []
    ended = threading.Event()

    def ask(number: int) -> None:
        with httpx.Client() as session:
            size = number
            while not ended.is_set():
                size = (size + 7) % 97
                answer = session.post(
                    f"{fresh.url}/predict/mixed", json={"rows": [{"size": size, "colour": "blue"}]}
                )
                if answer.status_code != 200:
                    failures.append(answer.text)
                    continue
                value = answer.json()
                factor = {"1": 1, "2": 2}[value["version"]]
                if value["predictions"][0]["prediction"] != factor * size + 2:
                    failures.append(f"{size}: {value}")
                answered.append((time.monotonic(), value["version"]))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    try:
        assert until(lambda: len(answered) > 200)
        fresh.yard.set("mixed", Canary(first.digest, second.digest, 0.5))
        fresh.yard.canary_passed("mixed", first.digest, second.digest)
        assert until(lambda: fresh.generation("mixed") > 0 and any(version == "2" for _, version in answered))
        promoted = time.monotonic()
        generation = yard.Endpoints(fresh.yard.store).promote("mixed", by="test").generation
        assert until(lambda: fresh.generation("mixed") == generation, 1.5)
        switched = time.monotonic()
        assert until(lambda: len([1 for at, _ in answered if at > switched + 0.1]) > 200)
        assert all(version == "2" for at, version in answered if at > switched + 0.1)
        assert switched - promoted < 1.5
        back = yard.Endpoints(fresh.yard.store).rollback("mixed", why="test", by="test").generation
        assert until(lambda: fresh.generation("mixed") == back, 1.5)
        switched = time.monotonic()
        assert until(lambda: len([1 for at, _ in answered if at > switched + 0.1]) > 200)
        assert all(version == "1" for at, version in answered if at > switched + 0.1)
    finally:
        ended.set()
        for thread in threads:
            thread.join()
    assert not failures, failures[:3]
    assert len(answered) > 600


def test_canary_is_sticky_and_shadows_are_silent(fresh: Place) -> None:
    first = fresh.yard.release("mixed", yard.mixed(1.0))
    second = fresh.yard.release("mixed", yard.mixed(2.0))
    fresh.yard.set("mixed", Single(first.digest))
    state = fresh.yard.set("mixed", Canary(first.digest, second.digest, 0.5))
    fresh.start("mixed")
    body = {"rows": [{"size": 1, "colour": "red"}]}

    def version(key: str) -> str:
        return str(httpx.post(f"{fresh.url}/predict/mixed", json=body | {"key": key}).json()["version"])

    sides = {f"client-{number}": version(f"client-{number}") for number in range(12)}
    assert set(sides.values()) == {"1", "2"}
    assert {key: version(key) for key in sides} == sides
    assert fresh.generation("mixed") == state.generation
    shadow = fresh.yard.set("mixed", Shadow(first.digest, second.digest)).generation
    assert until(lambda: fresh.generation("mixed") == shadow)
    assert {version(key) for key in sides} == {"1"}

    def arms() -> list[tuple[str, str]]:
        table = read_predictions(fresh.state, "mixed").to_pylist()
        return [(row["arm"], row["version"]) for row in table if row["arm"] == "shadow"]

    assert until(lambda: len(arms()) == len(sides))
    assert set(arms()) == {("shadow", "2")}


def test_a_bad_release_is_refused_and_the_old_one_serves_on(fresh: Place) -> None:
    good = fresh.yard.release("mixed", yard.mixed(1.0))
    lying = fresh.yard.release("mixed", yard.mixed(1.0), answers=np.full((4, 1), 77.0, np.float32))
    fresh.yard.set("mixed", Single(good.digest))
    fresh.start("mixed")
    fresh.yard.set("mixed", Canary(good.digest, lying.digest, 1.0))

    def report() -> dict[str, Any]:
        return dict(httpx.get(f"{fresh.url}/v2/health/ready").json()["endpoints"]["mixed"])

    assert until(lambda: "refused" in report())
    assert "training time" in report()["refused"]["why"]
    answer = httpx.post(f"{fresh.url}/predict/mixed", json={"rows": [{"size": 1, "colour": "red"}]})
    assert (answer.status_code, answer.json()["version"]) == (200, "1")
    assert fresh.metric("modelyard_refused_total") == 1
    fresh.yard.set("mixed", Single(good.digest))
    assert until(lambda: "refused" not in report())


class Stranger(yard.Yard):
    """Somebody who writes into the same store with a key of their own."""

    @property
    def keys(self) -> Path:
        return self.folder / "strange-keys"


def _changed(place: Place) -> Any:
    """A release whose model was changed where the store keeps it."""
    release = place.yard.release("mixed", yard.mixed(2.0))
    name = release.files["model.onnx"].removeprefix("sha256:")[2:]
    (path,) = (place.yard.folder / "store" / "objects").rglob(name)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)
    return release


def _strange(place: Place) -> Any:
    """A release that is whole, and signed by a key that the service does not trust."""
    stranger = Stranger(place.yard.folder, place.yard.store)
    signing_key(stranger.keys)
    return stranger.release("mixed", yard.mixed(2.0))


@pytest.mark.parametrize("make", [_changed, _strange])
def test_a_tampered_release_is_refused_and_the_old_one_serves_on(
    fresh: Place, make: Callable[[Place], Any]
) -> None:
    good = fresh.yard.release("mixed", yard.mixed(1.0))
    fresh.yard.set("mixed", Single(good.digest))
    fresh.start("mixed")
    bad = make(fresh)
    fresh.yard.set("mixed", Canary(good.digest, bad.digest, 1.0))

    def report() -> dict[str, Any]:
        return dict(httpx.get(f"{fresh.url}/v2/health/ready").json()["endpoints"]["mixed"])

    assert until(lambda: "refused" in report())
    assert re.search("damaged|differs|not trusted", report()["refused"]["why"])
    body = {"rows": [{"size": 1, "colour": "blue"}]}
    for _ in range(20):
        answer = httpx.post(f"{fresh.url}/predict/mixed", json=body)
        assert (answer.status_code, answer.json()["version"]) == (200, "1")


def test_killed_and_without_a_store_it_serves_again(fresh: Place) -> None:
    fresh.yard.serve(("mlp", "mixed"))
    fresh.start()
    body = {"rows": [{"size": 1, "colour": "blue"}]}
    with httpx.Client() as session:
        for _ in range(50):
            assert session.post(f"{fresh.url}/predict/mixed", json=body).status_code == 200
    assert until(lambda: read_predictions(fresh.state, "mixed").num_rows == 50)
    shutil.rmtree(fresh.yard.folder / "store")
    shutil.rmtree(fresh.yard.keys)
    assert until(lambda: not httpx.get(f"{fresh.url}/v2/health/ready").json()["store"]["reachable"])
    assert fresh.metric("modelyard_store_up") == 0
    assert httpx.post(f"{fresh.url}/predict/mixed", json=body).status_code == 200
    assert fresh.running is not None
    os.kill(fresh.running.pid, signal.SIGKILL)
    assert until(lambda: running(fresh.state) is None)
    fresh.start()
    answer = httpx.post(f"{fresh.url}/predict/mixed", json=body).json()
    assert answer["predictions"][0]["prediction"] == 3.0
    # Nothing is begun anew where the store was lost.
    assert not (fresh.yard.folder / "store").exists()
    stop(fresh.state)
    assert read_predictions(fresh.state, "mixed").num_rows >= 51


def test_start_find_stop(fresh: Place) -> None:
    fresh.yard.serve(("mixed",))
    assert running(fresh.state) is None
    fresh.start("mixed")
    first = running(fresh.state)
    assert first is not None
    fresh.start("mixed")
    assert running(fresh.state) == first
    # A pid that belongs to somebody else now is not ours.
    file = fresh.state / "service.json"
    value = json.loads(file.read_text())
    file.write_text(json.dumps(value | {"started": value["started"] - 1}))
    assert running(fresh.state) is None
    file.write_text(json.dumps(value))
    assert stop(fresh.state) is True
    assert stop(fresh.state) is False
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{first.url}/v2/health/live")


def test_start_says_why_not(fresh: Place) -> None:
    with pytest.raises(ServeError, match="no key is trusted"):
        options = ServeOptions(fresh.state, fresh.state / "nothing", ("mixed",), port=0)
        start(options, wait=10)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        fresh.options["port"] = taken.getsockname()[1]
        with pytest.raises(ServeError, match="cannot be listened on"):
            fresh.start("mixed")
    fresh.options["port"] = 0
    with pytest.raises(ServeError, match="there is no store"):
        start(
            ServeOptions(fresh.state, fresh.state / "nothing", ("mixed",), port=0, keys=fresh.yard.keys),
            wait=6,
        )
    fresh.yard.serve(("mlp",))
    with pytest.raises(ServeError, match="there is no endpoint 'mixed'"):
        options = ServeOptions(
            fresh.state, fresh.yard.folder / "store", ("mixed",), port=0, keys=fresh.yard.keys
        )
        start(options, wait=10)
    assert running(fresh.state) is None


def test_sigterm_finishes_what_is_in_work(fresh: Place) -> None:
    fresh.yard.serve(("cnn",))
    fresh.start("cnn")
    inputs = yard.rows_of("cnn", 16, seed=3)
    body = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [16, 3, 64, 64],
                        "data": inputs["x"].ravel().tolist()}]}  # fmt: skip
    content = json.dumps(body).encode()
    statuses: list[int] = []

    def ask() -> None:
        # On a busy machine one may come so late that nobody listens any more.
        with suppress(httpx.ConnectError):
            answer = httpx.post(f"{fresh.url}/v2/models/cnn/infer", content=content, timeout=60)
            statuses.append(answer.status_code)

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    assert until(lambda: fresh.metric("modelyard_batch_items_count") > 0, seconds=60)
    assert stop(fresh.state)
    for thread in threads:
        thread.join()
    assert set(statuses) == {200}
    assert read_predictions(fresh.state, "cnn").num_rows == len(statuses) * 16


def test_several_workers_and_a_killed_one_is_replaced(fresh: Place) -> None:
    fresh.yard.serve(("mixed",))
    fresh.options["workers"] = 2
    fresh.start("mixed")
    assert fresh.running is not None
    children = Path(f"/proc/{fresh.running.pid}/task/{fresh.running.pid}/children")

    def workers() -> set[int]:
        return {int(pid) for pid in children.read_text().split()}

    body = {"rows": [{"size": 1, "colour": "blue"}]}
    assert until(lambda: len(workers()) == 2)
    before = workers()
    os.kill(min(before), signal.SIGKILL)
    assert until(lambda: len(workers()) == 2 and workers() != before)
    for _ in range(20):
        assert httpx.post(f"{fresh.url}/predict/mixed", json=body, timeout=20).status_code == 200
    assert stop(fresh.state)
    assert not any(Path(f"/proc/{pid}").exists() for pid in before)
