"""Several workers of one service: real processes, killed under load; counts that must not go back."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from http.client import HTTPConnection, HTTPException
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from modelyard.core.errors import ServeError
from modelyard.core.poll import until
from modelyard.serve.reading import read_predictions
from modelyard.serve.service import running, stop
from modelyard.serve.worker_board import ready_workers

pytestmark = pytest.mark.serial


def children(pid: int) -> set[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return {int(child) for child in text.split()}


def told(text: str) -> dict[str, float]:
    """The series of a scrape, read by Prometheus' own client."""
    from prometheus_client import parser

    return {
        f"{sample.name}{sorted(sample.labels.items())}": sample.value
        for family in parser.text_string_to_metric_families(text)
        for sample in family.samples
        if family.type != "gauge"
    }


def scrape(made: Any) -> dict[str, float]:
    """What a worker tells, whichever it is: each scrape has a connection of its own."""
    return told(httpx.get(f"{made.url}/metrics", timeout=20).text)


def total(series: dict[str, float], name: str) -> float:
    return sum(value for key, value in series.items() if key.startswith(name + "["))


class Asker:
    """A connection that stays open at one worker, whose pid it knows, and checks every answer."""

    def __init__(self, made: Any, seed: int) -> None:
        self.connection = HTTPConnection(*made.address, timeout=30)
        values = np.random.default_rng(seed).normal(size=(1, 64)).astype(np.float32)
        tensor = {"name": "x", "datatype": "FP32", "shape": [1, 64], "data": values.ravel().tolist()}
        self.body = json.dumps({"inputs": [tensor]}).encode()
        self.right = made.module.answers_of(made.module.mlp(), {"x": values}).ravel()
        self.answered = 0
        self.pid = self.worker()

    def worker(self) -> int:
        """The pid of the worker at the other end."""
        self.connection.request("GET", "/v2/health")
        return int(json.loads(self.connection.getresponse().read())["pid"])

    def ask(self) -> None:
        self.connection.request("POST", "/v2/models/mlp/infer", self.body)
        response = self.connection.getresponse()
        answer = json.loads(response.read())
        assert response.status == 200, answer
        np.testing.assert_allclose(answer["outputs"][0]["data"], self.right, rtol=1e-4, atol=1e-6)
        self.answered += 1


Askers = Callable[[Any, int], list[Asker]]


@pytest.fixture
def askers_of() -> Iterator[Askers]:
    """Makes so many connections to a service; they are closed after the test."""
    made: list[Asker] = []

    def begin(service: Any, count: int) -> list[Asker]:
        new = []
        for seed in range(count):
            new.append(Asker(service, seed))
            made.append(new[-1])
        return new

    yield begin
    for asker in made:
        asker.connection.close()


def all_at(work: Callable[[Asker], None], askers: list[Asker]) -> list[threading.Thread]:
    threads = [threading.Thread(target=work, args=(asker,)) for asker in askers]
    for thread in threads:
        thread.start()
    return threads


def test_connections_are_spread_and_counts_are_of_all(serving: Callable[..., Any], askers_of: Askers) -> None:
    made = serving("mlp", workers=2)
    # Ready means all of them: nobody waited for anything here.
    report = httpx.get(f"{made.url}/v2/health").json()
    assert report["workers"] == {"wanted": 2, "ready": 2}
    workers = children(made.running.pid)
    askers = askers_of(made, 64)
    spread = Counter(asker.pid for asker in askers)
    assert set(spread) == workers
    assert min(spread.values()) >= 16, spread
    for asker in askers:
        for _ in range(3):
            asker.ask()
    name = "modelyard_requests_total"
    assert until(lambda: total(scrape(made), name) >= 192, 10)
    assert {total(scrape(made), name) for _ in range(8)} == {192}
    assert total(scrape(made), "modelyard_request_seconds_count") == 192
    stop(made.state)
    assert read_predictions(made.state, "mlp").num_rows == 192
    assert not any(Path(f"/proc/{pid}").exists() for pid in workers)


def test_a_killed_worker_costs_its_own_callers_only(serving: Callable[..., Any], askers_of: Askers) -> None:
    made = serving("mlp", workers=2)
    workers = children(made.running.pid)
    askers = askers_of(made, 16)
    victim = askers[0].pid
    at_victim = sum(asker.pid == victim for asker in askers)
    broken: list[int] = []
    seen: list[dict[str, float]] = []
    ending = threading.Event()

    def work(asker: Asker) -> None:
        while not ending.is_set():
            try:
                asker.ask()
            except (HTTPException, OSError):
                broken.append(asker.pid)
                asker.connection.close()
                # The next one is answered, wherever it comes.
                asker.pid = asker.worker()

    def look(_: Asker) -> None:
        while not ending.is_set():
            seen.append(scrape(made))

    threads = all_at(work, askers) + all_at(look, askers[:1])
    try:
        assert until(lambda: all(asker.answered > 20 for asker in askers) and len(seen) > 3)
        os.kill(victim, signal.SIGKILL)
        assert until(lambda: len(children(made.running.pid) - {victim}) == 2, 2.0)
        assert until(lambda: ready_workers(made.state, 2) == 2)
        already = sum(asker.answered for asker in askers)
        assert until(lambda: sum(asker.answered for asker in askers) > already + 500)
    finally:
        ending.set()
        for thread in threads:
            thread.join()
    assert set(broken) == {victim}
    assert len(broken) <= at_victim, "each connection is broken once"
    (survivor,) = workers - {victim}
    (newcomer,) = children(made.running.pid) - {survivor}
    for before, after in pairwise(seen):
        assert all(after[key] >= value for key, value in before.items()), "a counter went back"
    # A newcomer gets new connections as the other does, and goes on from what the dead one had counted.
    assert {asker.pid for asker in askers_of(made, 32)} == {survivor, newcomer}
    assert total(scrape(made), "modelyard_requests_total") >= total(seen[-1], "modelyard_requests_total")


def test_what_waits_at_a_killed_worker_is_answered_by_the_next(serving: Callable[..., Any]) -> None:
    made = serving("mlp", workers=2)
    victim = max(children(made.running.pid))
    # It takes no connection any more, and the kernel goes on to fill its queue.
    os.kill(victim, signal.SIGSTOP)
    assert until(lambda: Path(f"/proc/{victim}/stat").read_text().rpartition(")")[2].split()[0] == "T")
    waiting = []
    try:
        for _ in range(24):
            connection = socket.create_connection(made.address, timeout=40)
            connection.sendall(b"GET /v2/health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            waiting.append(connection)
    finally:
        os.kill(victim, signal.SIGKILL)
    answers = Counter(json.loads(_rest(connection))["pid"] for connection in waiting)
    assert sum(answers.values()) == 24
    assert set(answers) == children(made.running.pid)
    assert victim not in answers


def _rest(connection: socket.socket) -> bytes:
    """The body of an answer whose connection is closed behind it."""
    with connection:
        parts = []
        while part := connection.recv(65_536):
            parts.append(part)
    return b"".join(parts).partition(b"\r\n\r\n")[2]


def test_while_one_is_missing_the_others_take_all(serving: Callable[..., Any], askers_of: Askers) -> None:
    made = serving("mlp", workers=2)
    first = children(made.running.pid)
    os.kill(min(first), signal.SIGKILL)
    assert until(lambda: children(made.running.pid) != first)
    # No new connection is kept waiting for the newcomer, which loads for longer than this.
    seen = {asker.pid for asker in askers_of(made, 8)}
    assert seen <= {max(first)} or ready_workers(made.state, 2) == 2


@pytest.mark.parametrize("workers", [1, 2])
def test_a_second_service_on_the_port_is_refused(
    serving: Callable[..., Any], askers_of: Askers, workers: int
) -> None:
    made = serving("mlp", workers=2)
    port = made.address[1]
    for _ in range(2):
        with pytest.raises(ServeError, match="the address cannot be listened on"):
            serving("mlp", workers=workers, port=port)
        assert len({asker.pid for asker in askers_of(made, 16)}) == 2


def test_ready_means_grpc_too_and_another_on_its_port_is_refused(serving: Callable[..., Any]) -> None:
    grpc = pytest.importorskip("grpc")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    made = serving("mlp", workers=2, grpc_port=port)
    for _ in range(8):
        options = [("grpc.use_local_subchannel_pool", 1)]
        with grpc.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
            ask = channel.unary_unary("/inference.GRPCInferenceService/ServerReady")
            assert ask(b"", timeout=10) == b"\x08\x01"
    with pytest.raises(ServeError, match=f"(?s)cannot be listened on.*{port}"):
        serving("mlp", workers=2, grpc_port=port)
    assert ready_workers(made.state, 2) == 2


def test_over_ipv6(serving: Callable[..., Any]) -> None:
    made = serving("mlp", workers=2, host="::1")
    assert made.url.startswith("http://[::1]:")
    pids = {httpx.get(f"{made.url}/v2/health").json()["pid"] for _ in range(24)}
    assert pids == children(made.running.pid)


def test_feedback_that_another_worker_may_know_is_not_called_unknown(
    serving: Callable[..., Any], askers_of: Askers
) -> None:
    made = serving("mlp", workers=2)
    askers = {asker.pid: asker for asker in askers_of(made, 16)}
    one, other = askers.values()
    body = json.loads(one.body) | {"id": "r-1"}
    one.connection.request("POST", "/v2/models/mlp/infer", json.dumps(body))
    assert one.connection.getresponse().read()

    def send(asker: Asker) -> dict[str, Any]:
        sent = {"feedback": [{"id": "r-1", "label": "a"}]}
        asker.connection.request("POST", "/feedback/mlp", json.dumps(sent))
        answer: dict[str, Any] = json.loads(asker.connection.getresponse().read())
        return answer

    assert send(one) == {"accepted": 1, "unknown": 0}
    assert send(other) == {"accepted": 1, "unknown": None}
    assert until(lambda: total(scrape(made), "modelyard_feedback_total") == 2, 10)
    found = scrape(made)
    assert found["modelyard_feedback_total[('endpoint', 'mlp'), ('known', 'unsure')]"] == 1


def test_workers_do_not_outlive_who_watches_over_them(serving: Callable[..., Any]) -> None:
    made = serving("mlp", workers=2)
    workers = children(made.running.pid)
    os.kill(made.running.pid, signal.SIGKILL)
    assert until(lambda: not any(_lives(pid) for pid in workers))
    assert running(made.state) is None
    # The port is free, and what was counted begins anew.
    again = serving("mlp", workers=2, port=made.address[1])
    assert total(scrape(again), "modelyard_requests_total") == 0


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except OSError:
        return False
