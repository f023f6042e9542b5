"""Sockets that workers share: who gets a connection, who else may have the address, what a death leaves."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from modelyard.core.errors import ServeError
from modelyard.serve.listeners import Listeners
from modelyard.serve.process import bind

Open = Callable[..., Listeners]


@pytest.fixture
def opened() -> Iterator[Open]:
    made: list[Listeners] = []

    def begin(count: int = 2, host: str = "127.0.0.1", port: int = 0) -> Listeners:
        made.append(Listeners(bind(host, port, 1_024), count))
        return made[-1]

    yield begin
    for listeners in made:
        listeners.close()


def taken(listening: socket.socket) -> int:
    """How many connections wait at a socket; they are taken and closed."""
    count = 0
    while True:
        try:
            listening.accept()[0].close()
        except BlockingIOError:
            return count
        count += 1


def spread(listeners: Listeners, workers: int, connections: int = 64) -> list[int]:
    """How many of so many connections came to each socket."""
    host, port = listeners[0].getsockname()[:2]
    made = [socket.create_connection((host, port), timeout=5) for _ in range(connections)]
    found = [taken(listeners[slot]) for slot in range(workers)]
    for connection in made:
        connection.close()
    return found


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("workers", [2, 3])
def test_every_worker_gets_its_part(opened: Open, host: str, workers: int) -> None:
    found = spread(opened(workers, host), workers, 40 * workers)
    # A part under 16 of 40 expected comes about once in 100,000 runs.
    assert sum(found) == 40 * workers and min(found) >= 16


def test_both_families_are_shared_alike(opened: Open) -> None:
    listeners = opened(2, "::")
    port = listeners[0].getsockname()[1]
    for host in ("127.0.0.1", "::1"):
        made = [socket.create_connection((host, port), timeout=5) for _ in range(64)]
        found = [taken(listeners[slot]) for slot in (0, 1)]
        assert sum(found) == 64 and min(found) >= 12
        for connection in made:
            connection.close()


def test_connections_go_where_they_are_steered(opened: Open) -> None:
    listeners = opened(3)
    for slots in ([1], [2, 0], [0, 1, 2], [2]):
        listeners.steer(slots)
        found = spread(listeners, 3, 60)
        assert sum(found) == 60
        assert [slot for slot in range(3) if found[slot]] == sorted(slots)


def test_256_workers(opened: Open) -> None:
    listeners = opened(256)
    listeners.steer([255])
    assert spread(listeners, 256) == [0] * 255 + [64]


def test_one_worker_has_the_socket_to_itself(opened: Open) -> None:
    listeners = opened(1)
    listeners.steer([0])
    assert spread(listeners, 1) == [64]
    assert not listeners[0].getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT)


def test_what_waits_at_a_dead_worker_is_kept_for_the_next(opened: Open) -> None:
    listeners = opened(2)
    listeners.steer([1])
    inherited = socket.socket(fileno=os.dup(listeners[1].fileno()))
    with socket.create_connection(listeners[0].getsockname(), timeout=5) as client:
        client.sendall(b"question")
        inherited.close()
        listeners.steer([0])
        with listeners[1].accept()[0] as server:
            assert server.recv(100) == b"question"
            server.sendall(b"answer")
        assert client.recv(100) == b"answer"


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("other", ["127.0.0.1", "0.0.0.0"])  # noqa: S104 - refused, which is the point
def test_a_second_service_is_refused(opened: Open, count: int, other: str) -> None:
    port = opened(count)[0].getsockname()[1]
    with pytest.raises(ServeError, match="the address cannot be listened on"):
        bind(other, port, 1)


def test_of_services_that_start_at_once_one_gets_the_address() -> None:
    for _ in range(20):
        free = bind("127.0.0.1", 0, 1)
        port = free.getsockname()[1]
        free.close()
        made: list[Listeners] = []
        refused: list[ServeError] = []
        together = threading.Barrier(6)

        def claim(port: int = port, made: list[Listeners] = made, refused: list[ServeError] = refused,
                  together: threading.Barrier = together) -> None:  # fmt: skip
            together.wait()
            try:
                made.append(Listeners(bind("127.0.0.1", port, 8), 2))
            except ServeError as error:
                refused.append(error)

        threads = [threading.Thread(target=claim) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (len(made), len(refused)) == (1, 5)
        made[0].close()


def test_a_program_that_shares_its_own_port_is_not_joined() -> None:
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(ServeError, match="the address cannot be listened on"):
            bind("127.0.0.1", other.getsockname()[1], 1)


def test_a_program_that_joins_the_port_hears_of_nobody(opened: Open) -> None:
    listeners = opened(2)
    with socket.socket() as stranger:
        stranger.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        stranger.bind(listeners[0].getsockname())
        stranger.listen()
        stranger.setblocking(False)
        assert sum(spread(listeners, 2, 100)) == 100
        assert taken(stranger) == 0


def test_an_address_is_free_again_at_once(opened: Open) -> None:
    ports = {0}
    for _ in range(3):
        listeners = opened(2, "127.0.0.1", max(ports))
        ports.add(listeners[0].getsockname()[1])
        # The side that closes first is left in TIME_WAIT: here, the service.
        with socket.create_connection(listeners[0].getsockname(), timeout=5) as client:
            assert taken(listeners[0]) + taken(listeners[1]) == 1
            assert client.recv(1) == b""
        listeners.close()
    assert len(ports) == 2
