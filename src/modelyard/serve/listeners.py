"""`Listeners`: a listening socket for each worker on one address, and which of them get connections."""

from __future__ import annotations

import ctypes
import logging
import socket
import struct
from collections.abc import Sequence

from modelyard.core.errors import ServeError

BACKLOG = 1_024

_ATTACH_CBPF = getattr(socket, "SO_ATTACH_REUSEPORT_CBPF", 51)
_LOG = logging.getLogger("modelyard.serve")


class Listeners:
    """Sockets that share an address (`SO_REUSEPORT`); whoever watches over the workers keeps all of them.

    So a connection that waits at a worker which dies is not reset: the socket stays open, and the worker
    that comes in its place inherits it. `first` must be what `process.bind` made. It was bound and
    listened on without `SO_REUSEPORT`, which the kernel grants to one socket only: a second service that
    starts the same way is refused at any moment, without a lock and without a gap. Only then the option
    is set, and the others are bound beside it.
    """

    def __init__(self, first: socket.socket, count: int) -> None:
        self._sockets = [first]
        if count > 1:
            first.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        try:
            while len(self._sockets) < count:
                self._sockets.append(_beside(first))
        except OSError as error:
            self.close()
            raise ServeError("the address cannot be shared by workers", value=first.getsockname(),
                             rule=error.strerror, fix="serve with workers = 1") from error  # fmt: skip
        self.steer(range(count))

    def __getitem__(self, slot: int) -> socket.socket:
        return self._sockets[slot]

    def steer(self, slots: Sequence[int]) -> None:
        """Has new connections go to these workers alone, each as likely; those that wait stay where they are.

        A program of another's that joins the address with `SO_REUSEPORT` is never chosen. Where the system
        knows no such filter its own hash decides.
        """
        if len(self._sockets) == 1:
            return
        code = _choose(slots)
        held = ctypes.create_string_buffer(code, len(code))
        program = struct.pack("@HP", len(code) // 8, ctypes.addressof(held))
        try:
            self._sockets[0].setsockopt(socket.SOL_SOCKET, _ATTACH_CBPF, program)
        except OSError as error:
            _LOG.warning("the system's own hash deals out connections: %s", error.strerror)

    def close(self) -> None:
        """Closes all of them; connections that no worker took are reset when the workers end, too."""
        for listening in self._sockets:
            listening.close()


def _beside(first: socket.socket) -> socket.socket:
    listening = socket.socket(first.family, socket.SOCK_STREAM)
    for level, option in (
        (socket.SOL_SOCKET, socket.SO_REUSEADDR),
        (socket.SOL_SOCKET, socket.SO_REUSEPORT),
        (socket.IPPROTO_TCP, socket.TCP_NODELAY),
    ):
        listening.setsockopt(level, option, 1)
    try:
        listening.bind(first.getsockname())
        listening.listen(BACKLOG)
    except OSError:
        listening.close()
        raise
    listening.setblocking(False)
    return listening


def _choose(slots: Sequence[int]) -> bytes:
    """A classic BPF program that returns one of `slots` by chance.

    Sockets of a group are numbered in the order in which they began to listen (socket(7),
    `SO_ATTACH_REUSEPORT_CBPF`); instructions and the random number's address as in linux/filter.h.
    """
    load, modulo, equal, give = 0x20, 0x94, 0x15, 0x06
    random = 0xFFFFF000 + 56
    program = [(load, 0, 0, random), (modulo, 0, 0, len(slots))]
    for index, slot in enumerate(slots[:-1]):
        program += [(equal, 0, 1, index), (give, 0, 0, slot)]
    program.append((give, 0, 0, slots[-1]))
    return b"".join(struct.pack("@HBBI", *instruction) for instruction in program)
