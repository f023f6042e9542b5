"""One keep-alive HTTP/1.1 connection with one request under way at a time."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import TypeAlias

from modelyard.serve.load.reply import BadReply, ReplyReader

Done: TypeAlias = Callable[["Connection", int, str], None]
"""Called with the connection, the status (0 for none) and why there is none."""


class Connection(asyncio.Protocol):
    """Sends a request's bytes and tells when its response is whole.

    `done` is called exactly once for each request sent, also when the connection breaks. `intended` and
    `sent` belong to whoever sends: the times that the request under way is counted from.
    """

    __slots__ = ("_done", "_reader", "_transport", "_waiting", "intended", "open", "sent")

    def __init__(self, done: Done) -> None:
        self._done = done
        self._reader = ReplyReader()
        self._transport: asyncio.Transport | None = None
        self._waiting = False
        self.open = False
        self.intended = 0.0
        self.sent = 0.0

    @property
    def waiting(self) -> bool:
        return self._waiting

    @property
    def size(self) -> int:
        """Bytes of the last response's body."""
        return self._reader.size

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # a stream's transport is a Transport
        self.open = True
        raw = transport.get_extra_info("socket")
        if raw is not None and raw.family in (socket.AF_INET, socket.AF_INET6):
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, request: bytes) -> None:
        """Sends one request; the one before must be done."""
        self._waiting = True
        if self._transport is None or self._transport.is_closing():
            self._finish(0, "the connection is closed")
            return
        self._transport.write(request)

    def abort(self, why: str) -> None:
        """Gives up the request under way and closes."""
        self.open = False
        if self._transport is not None:
            self._transport.abort()
        if self._waiting:
            self._finish(0, why)

    def data_received(self, data: bytes) -> None:
        try:
            statuses = self._reader.feed(data)
        except BadReply as error:
            self.abort(str(error))
            return
        for status in statuses:
            if not self._waiting:
                self.abort("a response that nobody asked for")
                return
            if self._reader.closing:
                self.open = False
                if self._transport is not None:
                    self._transport.close()
            self._finish(status, "")

    def connection_lost(self, exc: Exception | None) -> None:
        self.open = False
        if self._waiting:
            ended = self._reader.end() if exc is None else []
            why = "" if ended else f"the connection broke ({'closed' if exc is None else type(exc).__name__})"
            self._finish(ended[0] if ended else 0, why)

    def _finish(self, status: int, why: str) -> None:
        self._waiting = False
        self._done(self, status, why)
