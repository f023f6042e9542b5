"""Cuts TLS connections that never ask anything: the HTTP engine bounds the head's time, not the handshake's.

The engine accepts connections itself, so they are found the way the system shows them: as sockets of this
process that are bound to the listening address. One that has not brought a request in time is shut down;
the engine then closes it.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

_FDS = Path("/proc/self/fd")


class HandshakeGuard:
    """The connections of one listening port, and since when each has said nothing."""

    def __init__(self, port: int, seconds: float) -> None:
        self._port = port
        self._seconds = seconds
        self._silent: dict[int, tuple[float, str]] = {}
        self._spoke: dict[str, float] = {}

    def spoke(self, peer: str, now: float) -> None:
        """A request came from this peer (`address:port`)."""
        self._spoke[peer] = now

    def cut(self, now: float) -> int:
        """Shuts down what has said nothing for too long; how many those were. Reads the process's files."""
        cut = 0
        silent: dict[int, tuple[float, str]] = {}
        for number, inode in _sockets():
            since, peer = self._silent.get(inode) or (now, _peer(number, self._port))
            silent[inode] = (since, peer)
            if peer and now - since > self._seconds and peer not in self._spoke:
                cut += _shut(number, self._port, peer)
        self._silent = silent
        here = {peer for _, peer in silent.values()}
        # A connection that spoke is the engine's to watch; its peer's name may come again later.
        for peer, last in list(self._spoke.items()):
            if peer not in here and now - last > self._seconds:
                self._spoke.pop(peer, None)
        return cut


def _sockets() -> Iterator[tuple[int, int]]:
    for entry in os.listdir(_FDS):  # noqa: PTH208 - thousands of entries a second, names are enough
        try:
            target = os.readlink(f"{_FDS}/{entry}")  # noqa: PTH115 - as above
        except OSError:
            continue
        if target.startswith("socket:["):
            yield int(entry), int(target[8:-1])


def _peer(number: int, port: int) -> str:
    """Who is at the other end of a connection to this port; empty for any other socket."""
    try:
        with socket.socket(fileno=os.dup(number)) as found:
            if found.family not in (socket.AF_INET, socket.AF_INET6) or found.getsockname()[1] != port:
                return ""
            host, far = found.getpeername()[:2]
            return f"[{host}]:{far}" if found.family == socket.AF_INET6 else f"{host}:{far}"
    except OSError:
        return ""


def _shut(number: int, port: int, peer: str) -> int:
    # The number may belong to another socket by now: it is held, and asked again, before it is shut.
    try:
        with socket.socket(fileno=os.dup(number)) as found:
            if _peer(found.fileno(), port) != peer:
                return 0
            found.shutdown(socket.SHUT_RDWR)
            return 1
    except OSError:
        return 0
