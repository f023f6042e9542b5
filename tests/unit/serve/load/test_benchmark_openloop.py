"""The benchmark's open loop in C against the small real server, beside the one in Python."""

from __future__ import annotations

import importlib
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.serial
REQUEST = b"POST /v2/models/m/infer HTTP/1.1\r\nHost: t\r\nContent-Length: 2\r\n\r\n{}"


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[4] / "benchmarks"))
    module = importlib.import_module("serve.openloop")
    core = str(max(os.sched_getaffinity(0)))

    def run(port: int, rate: float, **given: Any) -> Any:
        options: dict[str, Any] = {"seconds": 0.4, "warmup": 0.1, "connections": 8, "kind": "constant"}
        return module.load(port, REQUEST, rate, **options | given, core=core)

    return run


def test_sends_what_was_planned(server: Any, load: Any) -> None:
    found = load(server.port, 200)
    assert found.sent == found.answered == 80 and found.statuses == {"200": 80}
    assert not found.failed and not any(found.errors.values())
    assert len(server.seen) == 100 and set(server.seen) == {b"{}"} and server.connections == 8
    assert 0 < found.latency["p50"] <= found.latency["p99"] <= found.latency["max"] < 1
    assert 0 <= found.lateness["p99"] <= found.lateness["max"] < 1


def test_poisson_arrivals_follow_the_seed(server: Any, load: Any) -> None:
    first, again, other = (load(server.port, 500, kind="poisson", seed=seed).sent for seed in (1, 1, 2))
    assert first == again and {first, other} != {200}
    assert 140 < first < 260 and 140 < other < 260


def test_a_stall_counts_for_every_request_that_was_due(server: Any, load: Any) -> None:
    server.behave = lambda number: (200, 0.2 if number == 30 else 0.0, False)
    found = load(server.port, 200, connections=2)
    assert found.sent == found.answered == 80
    # 0.2 s of 200 a second: 40 of 80 waited, on average half of it, though two connections only were waiting.
    assert found.latency["p90"] > 0.1 and found.latency["p50"] < found.latency["max"]
    assert 0.19 < found.latency["max"] < 1.5


def test_refusals_and_broken_connections_fail(server: Any, load: Any) -> None:
    server.behave = lambda number: (503 if number % 10 == 0 else 0 if number % 10 == 5 else 200, 0.0, False)
    found = load(server.port, 200)
    assert found.statuses == {"200": 64, "503": 8} and found.errors["closed"] == 8
    assert found.failed == 16 and found.answered == 72 and server.connections > 8


@pytest.fixture
def says() -> Iterator[Any]:
    """Starts a server of one connection that gives these pieces as its answer to every request."""
    threads = []

    def start(*pieces: bytes) -> int:
        listening = socket.create_server(("127.0.0.1", 0))

        def talk() -> None:
            with listening, listening.accept()[0] as connection:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                while connection.recv(len(REQUEST)):
                    for piece in pieces:
                        connection.sendall(piece)

        threads.append(threading.Thread(target=talk))
        threads[-1].start()
        return int(listening.getsockname()[1])

    yield start
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()


def test_an_answer_may_come_in_any_pieces(says: Any, load: Any) -> None:
    answer = b"HTTP/1.1 200 OK\r\ncontent-LENGTH:  5\r\nA: b\r\n\r\nhello"
    found = load(says(*(answer[place : place + 1] for place in range(len(answer)))), 100, connections=1)
    assert found.statuses == {"200": 40} and not found.failed


def test_chunks_are_not_read(says: Any, load: Any) -> None:
    port = says(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")
    with pytest.raises(Exception, match="no answer with 200 at 100/s"):
        load(port, 100, connections=1, seconds=0.01, warmup=0)


def test_a_port_where_nobody_listens(load: Any) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        with pytest.raises(Exception, match="does not take all connections"):
            load(held.getsockname()[1], 100)
