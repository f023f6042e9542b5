"""The HTTP door: takes connections on a listening socket and keeps them within their limits."""

from __future__ import annotations

import asyncio
import socket
from email.utils import formatdate
from typing import TYPE_CHECKING

from modelyard.core.errors import RequestError
from modelyard.serve.http.connection import Connection, Service
from modelyard.serve.http.head import Head, KnownHeads

if TYPE_CHECKING:
    from modelyard.core.clock import Clock
    from modelyard.serve.access.tls import Tls
    from modelyard.serve.options import Limits

BACKLOG = 1_024
MAX_CONNECTIONS = 4_096
COMING_BYTES = 512 << 20
"""Bytes of bodies that may be on their way together."""
DRAIN_SECONDS = 0.25
"""How long an idle connection may still bring a request when the door closes: it may be under way."""


class HttpDoor:
    """Serves a `Service` on a listening socket from `open` to `close`; all on the event loop's thread."""

    def __init__(self, service: Service, limits: Limits, clock: Clock, *, tls: Tls | None = None) -> None:
        self.service = service
        self.limits = limits
        self.heads = KnownHeads()
        self.last: Head | None = None
        """The head of the request that was taken last."""
        self.draining = False
        """Whether each answer is its connection's last."""
        self._clock = clock
        self._tls = tls
        self._connections: set[Connection] = set()
        self._coming = 0
        self._server: asyncio.Server | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._empty: asyncio.Future[None] | None = None
        self.now = clock.monotonic()
        """The monotonic clock, to the second."""
        self.date = b""
        """The answers' date."""

    async def open(self, listening: socket.socket) -> None:
        """Begins to answer; the socket must listen, and belongs to the door from here on."""
        loop = asyncio.get_running_loop()
        _drop_the_dead(listening, self.limits)
        context = None if self._tls is None else self._tls.context()
        timeout = None if context is None else self.limits.header_seconds
        self._tick(loop)
        self._server = await loop.create_server(
            lambda: Connection(self),
            sock=listening,
            backlog=BACKLOG,
            ssl=context,
            ssl_handshake_timeout=timeout,
            ssl_shutdown_timeout=None if context is None else 1.0,
        )

    async def close(self) -> None:
        """Stops taking connections and returns when those that are open have ended."""
        loop = asyncio.get_running_loop()
        if self._server is not None:
            self._server.close()
        self.draining = True
        loop.call_later(DRAIN_SECONDS, self._rest)
        if self._connections:
            self._empty = loop.create_future()
            await self._empty
        if self._timer is not None:
            self._timer.cancel()

    # What connections say.

    def enter(self, connection: Connection) -> bool:
        """A client has come; `False` when there are too many."""
        if len(self._connections) >= MAX_CONNECTIONS:
            return False
        self._connections.add(connection)
        return True

    def leave(self, connection: Connection) -> None:
        """A connection has ended."""
        self._connections.discard(connection)
        if self._empty is not None and not self._connections and not self._empty.done():
            self._empty.set_result(None)

    def expect(self, length: int) -> RequestError | None:
        """A body of that size is to come: why it may not, or nothing; `came` must follow then."""
        if self._coming + length > COMING_BYTES:
            return RequestError("too many large bodies come at once", status=503, value=length, where="body",
                                rule=f"{COMING_BYTES} bytes together", retry_after=1.0)  # fmt: skip
        self._coming += length
        return None

    def came(self, length: int) -> None:
        """A body that was expected is there, or will never be."""
        self._coming -= length

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        now = self.now = self._clock.monotonic()
        self.date = formatdate(self._clock.now(), usegmt=True).encode()
        for connection in tuple(self._connections):
            connection.look(now)
        self._timer = loop.call_later(1.0, self._tick, loop)

    def _rest(self) -> None:
        for connection in tuple(self._connections):
            connection.rest()


def _drop_the_dead(listening: socket.socket, limits: Limits) -> None:
    """Lets the kernel end connections whose client is gone without a word, or does not read its answers.

    Accepted sockets inherit these from the listening one (Linux).
    """
    milliseconds = int(1000 * max(limits.header_seconds, limits.body_seconds))
    for level, option, value in (
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
        (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 15),
        (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5),
        (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
        (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds),
    ):
        listening.setsockopt(level, option, value)
