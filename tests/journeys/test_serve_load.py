"""The plane under more load than it can take: right answers, quick refusals, nobody else's rows."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import serve_yard as yard

from modelyard.release.policy import Canary
from modelyard.serve.options import ServeOptions
from modelyard.serve.reading import read_predictions
from modelyard.serve.service import Running, start, stop

pytestmark = pytest.mark.serial


@pytest.fixture
def place(tmp_path: Path) -> Iterator[tuple[Any, Any, Running]]:
    made = yard.Yard.make(tmp_path)
    releases = made.serve(("mlp", "cnn"))
    options = ServeOptions(
        state=tmp_path / "state", root=tmp_path / "store", endpoints=("mlp", "cnn"), keys=made.keys, port=0
    )
    yield made, releases, start(options)
    stop(options.state)


class Client:
    """One connection that asks again and again, and keeps what it heard."""

    def __init__(self, url: str) -> None:
        host, _, port = url.removeprefix("http://").rpartition(":")
        self.connection = HTTPConnection(host, int(port), timeout=20)
        self.heard: list[tuple[int, float, Any, str | None]] = []

    def ask(self, endpoint: str, values: np.ndarray, timeout: int = 0) -> tuple[int, Any]:
        tensor = {"name": "x", "datatype": "FP32", "shape": list(values.shape),
                  "parameters": {"binary_data_size": values.nbytes}}  # fmt: skip
        head = json.dumps(
            {"inputs": [tensor]} | ({"parameters": {"timeout": timeout}} if timeout else {})
        ).encode()
        if timeout == 0 and values.shape[1:] == (64,):
            tensor = {
                "name": "x",
                "datatype": "FP32",
                "shape": list(values.shape),
                "data": values.ravel().tolist(),
            }
            body, headers = json.dumps({"inputs": [tensor]}).encode(), {}
        else:
            body, headers = head + values.tobytes(), {"Inference-Header-Content-Length": str(len(head))}
        began = time.perf_counter()
        self.connection.request("POST", f"/v2/models/{endpoint}/infer", body, headers)
        response = self.connection.getresponse()
        answer = json.loads(response.read())
        self.heard.append(
            (response.status, time.perf_counter() - began, answer, response.getheader("retry-after"))
        )
        return response.status, answer


@pytest.fixture
def clients() -> Iterator[list[Client]]:
    made: list[Client] = []
    yield made
    for client in made:
        client.connection.close()


def together(work: Any, count: int) -> None:
    errors: list[BaseException] = []

    def guarded(number: int) -> None:
        try:
            work(number)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def test_every_answer_is_its_own_under_load_and_swap(
    place: Any, clients: list[Client], tmp_path: Path
) -> None:
    made, releases, running = place
    graphs = [yard.mlp(0), yard.mlp(5)]
    second = made.release("mlp", graphs[1])
    first = releases["mlp"]
    asked = 0
    lock = threading.Lock()

    def work(number: int) -> None:
        nonlocal asked
        if number == 0:
            time.sleep(0.5)
            made.set("mlp", Canary(first.digest, second.digest, 0.5))
            return
        rng = np.random.default_rng(number)
        client = Client(running.url)
        clients.append(client)
        for _ in range(100):
            values = rng.normal(size=(int(rng.integers(1, 4)), 64)).astype(np.float32)
            status, answer = client.ask("mlp", values)
            assert status == 200
            found = np.array(answer["outputs"][0]["data"]).reshape(len(values), 10)
            graph = graphs[int(answer["model_version"]) - 1]
            np.testing.assert_allclose(found, yard.answers_of(graph, {"x": values}), rtol=1e-3, atol=1e-5)
            with lock:
                asked += len(values)

    together(work, 13)
    stop(tmp_path / "state")
    assert read_predictions(tmp_path / "state", "mlp").num_rows == asked, "every item is in the log, once"


def test_too_much_is_refused_at_once_and_nothing_answers_late(place: Any, clients: list[Client]) -> None:
    _, _, running = place
    values = yard.rows_of("cnn", 16, seed=3)["x"]
    right = yard.answers_of(yard.cnn(), {"x": values})
    clients += [Client(running.url) for _ in range(24)]
    patience = 0.1

    def work(number: int) -> None:
        for _ in range(12):
            status, answer = clients[number].ask("cnn", values, int(patience * 1e6))
            if status == 200:
                found = np.array(answer["outputs"][0]["data"]).reshape(16, 10)
                np.testing.assert_allclose(found, right, rtol=1e-3, atol=1e-5)

    together(work, len(clients))
    heard = [item for client in clients for item in client.heard]
    statuses = {status for status, *_ in heard}
    assert statuses <= {200, 503, 504} and 503 in statuses and 200 in statuses
    assert all(retry is not None for status, _, _, retry in heard if status == 503)
    refusals = sorted(seconds for status, seconds, *_ in heard if status == 503)
    # At once: what a refusal takes is reading 800 kB on a busy machine, not the queue of 24 callers.
    assert refusals[len(refusals) // 2] < 1.0
    waits = sorted(seconds for status, seconds, *_ in heard if status == 200)
    assert waits[len(waits) // 2] < 20 * patience
