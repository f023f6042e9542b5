"""More endpoints than memory: loaded when asked for, evicted, swapped while away, failed, over every door."""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from modelyard.core.errors import ServeError
from modelyard.core.poll import until
from modelyard.release.policy import Single
from modelyard.serve.options import ServeOptions
from modelyard.serve.service import start, stop

INPUT = np.linspace(-1, 1, 64, dtype=np.float32).reshape(1, 64)
BODY = json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 64], "data": INPUT.tolist()}]})


class Many:
    """Small endpoints `m0`, `m1`, ... and a service before them."""

    def __init__(self, module: Any, folder: Path, count: int) -> None:
        self.module = module
        self.yard = module.Yard.make(folder)
        self.names = self.yard.many(count)
        self.state = folder / "state"
        self.http = httpx.Client(timeout=30)

    def start(self, **options: Any) -> None:
        self.options = ServeOptions(
            state=self.state, root=self.yard.folder / "store", endpoints=self.names, keys=self.yard.keys,
            **({"port": 0} | options),
        )  # fmt: skip
        self.url = start(self.options).url

    def ask(self, name: str) -> httpx.Response:
        return self.http.post(f"{self.url}/v2/models/{name}/infer", content=BODY)

    def expected(self, name: str) -> np.ndarray:
        return np.asarray(self.module.answers_of(self.module.mlp(int(name[1:])), {"x": INPUT})).ravel()

    def check(self, name: str) -> None:
        answer = self.ask(name)
        assert answer.status_code == 200, answer.text
        np.testing.assert_allclose(answer.json()["outputs"][0]["data"], self.expected(name), rtol=1e-3)

    def states(self) -> dict[str, str]:
        report = self.http.get(f"{self.url}/v2/health").json()
        return {name: item["state"] for name, item in report["endpoints"].items()}

    def index(self) -> dict[str, tuple[str, str]]:
        listed = self.http.post(f"{self.url}/v2/repository/index").json()
        return {item["name"]: (item["state"], item["reason"]) for item in listed}

    def metric(self, name: str) -> float:
        lines = self.http.get(f"{self.url}/metrics").text.splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))


@pytest.fixture
def many(tmp_path: Path, yard_module: Any) -> Iterator[Many]:
    made = Many(yard_module, tmp_path, 6)
    yield made
    made.http.close()
    stop(made.state)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def test_what_is_not_loaded_answers_its_first_request_over_every_door(many: Many) -> None:
    many.start(eager=1, grpc_port=free_port())
    assert many.states() == {"m0": "ready"} | dict.fromkeys(many.names[1:], "cold")
    assert many.http.get(f"{many.url}/v2/health/ready").status_code == 200
    assert many.http.get(f"{many.url}/v2/models/m1/ready").status_code == 200
    assert many.index()["m1"] == ("UNAVAILABLE", "not loaded yet; the first request loads it")
    # Twelve at once cause one load.
    with ThreadPoolExecutor(12) as threads:
        answers = list(
            threads.map(lambda _: httpx.post(f"{many.url}/v2/models/m1/infer", content=BODY), range(12))
        )
    assert {answer.status_code for answer in answers} == {200}
    assert many.metric('modelyard_loads_total{why="request"}') == 1
    rows = many.http.post(f"{many.url}/predict/m2", json={"rows": [{"x": INPUT[0].tolist()}]})
    assert rows.status_code == 200, rows.text
    dialect = many.http.post(f"{many.url}/v1/models/m3:predict", json={"instances": INPUT.tolist()})
    np.testing.assert_allclose(dialect.json()["predictions"][0], many.expected("m3"), rtol=1e-3)
    assert many.http.get(f"{many.url}/v2/models/m5").json()["name"] == "m5"
    import tritonclient.grpc as triton

    tensor = triton.InferInput("x", [1, 64], "FP32")
    tensor.set_data_from_numpy(INPUT)
    with triton.InferenceServerClient(f"127.0.0.1:{many.options.grpc_port}") as client:
        found = client.infer("m4", [tensor]).as_numpy("probabilities")
    np.testing.assert_allclose(found[0], many.expected("m4"), rtol=1e-3)
    assert set(many.states().values()) == {"ready"}
    # A wrong request to what is not loaded, and one that cannot wait.
    assert many.http.post(f"{many.url}/v2/models/m9/infer", content=BODY).status_code == 404


def test_models_make_room_for_each_other_and_the_pinned_stay(many: Many) -> None:
    many.start(eager=0, pinned=("m5",), memory_bytes=1)
    assert many.states()["m5"] == "ready"
    for name in (*many.names, *many.names):
        many.check(name)
        assert many.states()["m5"] == "ready"
    assert many.metric('modelyard_evictions_total{why="memory"}') >= 8
    assert until(lambda: many.metric("modelyard_resident_endpoints") <= 2)
    assert many.index()["m0"] == ("UNAVAILABLE", "out of memory; the next request loads it again")
    assert many.http.get(f"{many.url}/v2/models/m0/ready").status_code == 200
    with ThreadPoolExecutor(6) as threads:
        answers = list(threads.map(lambda i: many.ask(many.names[i % 6]).status_code, range(120)))
    assert answers == [200] * 120


def test_a_swap_of_what_is_evicted_and_a_store_that_is_lost(many: Many) -> None:
    many.start(eager=0, memory_bytes=1)
    for name in many.names[:3]:
        many.check(name)
    assert until(lambda: many.states()["m0"] == "evicted")
    many.yard.next_of("m0", many.module.mlp(100))
    assert until(lambda: many.metric('modelyard_loads_total{why="policy"}') >= 1)
    # First the canary is taken over, then its candidate is the champion.
    assert until(lambda: bool(many.ask("m0").json()["model_version"] == "2"))
    many.check("m2")
    assert until(lambda: many.states()["m0"] == "evicted")
    # Copies are made of what was never loaded too: nothing of it needs the store.
    copies = many.state / "routing" / "endpoints"
    assert until(lambda: {path.stem for path in copies.glob("*.json")} == set(many.names))
    shutil.rmtree(many.yard.folder / "store")
    assert until(lambda: not many.http.get(f"{many.url}/v2/health").json()["store"]["reachable"])
    for name in many.names[1:]:
        many.check(name)
    assert many.ask("m0").json()["model_version"] == "2"


def test_what_cannot_be_loaded_says_so_and_fails_alone(many: Many) -> None:
    bad = many.yard.release("mlp", many.module.mlp(7), answers=np.zeros((4, 10), np.float32))
    many.yard.set("bad", Single(bad.digest))
    many.names = (*many.names, "bad")
    many.start(eager=1)
    for _ in range(2):
        answer = many.ask("bad")
        assert answer.status_code == 503 and int(answer.headers["retry-after"]) >= 1
        assert "training time" in answer.json()["error"]
    state, reason = many.index()["bad"]
    assert state == "UNAVAILABLE" and "training time" in reason
    assert many.states()["bad"] == "failed"
    assert many.http.get(f"{many.url}/v2/models/bad/ready").status_code == 503
    assert many.http.get(f"{many.url}/v2/health/ready").status_code == 200
    many.check("m4")
    # What is to be loaded at the start must be right at the start.
    stop(many.state)
    with pytest.raises(ServeError, match="training time"):
        many.start(eager=0, pinned=("bad",))
