"""The HTTP door: Granian's RSGI worker inside our own process and on our own event loop.

Granian's command line would own processes, signals and the loop. Here its worker class is built as
`granian.server.mp` (2.8) builds it, with one difference: a request is a callback, not a coroutine, and its
reply is sent by whoever finishes it. No task waits for an answer.
"""

from __future__ import annotations

import asyncio
import importlib
import socket
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from granian.http import HTTP1Settings
from granian.rsgi import ProtocolClosed as RSGIProtocolClosed

from modelyard.core.clock import Clock
from modelyard.core.errors import ModelyardError, RequestError
from modelyard.core.spec import Tensors
from modelyard.serve.access.handshake import HandshakeGuard
from modelyard.serve.access.tls import Tls
from modelyard.serve.app import App
from modelyard.serve.lane import Call
from modelyard.serve.options import Limits
from modelyard.serve.scheduler import callback_scheduler

# Its stub file is behind its code (2.8.7): no IPC argument, no serve methods.
_ENGINE: Any = importlib.import_module("granian._granian")

BACKLOG = 1_024
_CONNECTIONS = 4_096
_CHUNKED_METHODS = ("POST", "PUT", "PATCH")


class RsgiDoor:
    """Serves an `App` on a listening socket until `close`."""

    def __init__(self, app: App, limits: Limits, clock: Clock, *, tls: Tls | None = None) -> None:
        self._app = app
        self._limits = limits
        self._clock = clock
        self._tls = tls
        self._handshakes: HandshakeGuard | None = None
        self._signal = _ENGINE.WorkerSignal()
        self._closed: asyncio.Future[None] | None = None
        self._reading: dict[int, tuple[float, Any, Any]] = {}
        self._watch: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def open(self, listening: socket.socket, loop: asyncio.AbstractEventLoop) -> None:
        """Begins to answer; the socket must listen, and belongs to the door from here on."""
        self._closed = loop.create_future()
        closed = self._closed
        self._signal.add_cb(lambda: loop.call_soon_threadsafe(_settle, closed))
        settings = HTTP1Settings(
            header_read_timeout=int(self._limits.header_seconds * 1000), max_buffer_size=self._limits.head
        )
        _drop_the_dead(listening, self._limits)
        tls = self._tls
        if tls is not None:
            tls.check()
            self._handshakes = HandshakeGuard(listening.getsockname()[1], self._limits.header_seconds)
        holder = _ENGINE.SocketHolder(listening.detach(), False, BACKLOG)
        worker = _ENGINE.RSGIWorker(
            1,
            (None, holder),
            None,
            1,  # one HTTP thread: the loop's thread is what limits
            8,
            1,
            30,
            _CONNECTIONS,
            "1",
            settings,
            None,
            False,
            None,
            tls is not None,
            None if tls is None else str(tls.certificate),
            None if tls is None else str(tls.key),
            None,
            "tls1.2",
            None,
            [],
            False,
            (None, None),
        )
        self._loop = loop
        scheduler = callback_scheduler(loop, self._begin)
        worker.serve_str(scheduler, loop, self._signal)
        self._watch = loop.call_later(1.0, self._cut, loop)

    async def close(self) -> None:
        """Stops taking connections and returns when those that are open have ended."""
        if self._watch is not None:
            self._watch.cancel()
        self._signal.set()
        if self._closed is not None:
            await self._closed

    def _begin(self, watcher: Any) -> None:
        """Takes one request whose head is there; Granian's watcher only hears of failures."""
        protocol = watcher.proto
        try:
            scope = watcher.scope
            headers: Callable[[str], str | None] = scope.headers.get
            if self._handshakes is not None:
                self._handshakes.spoke(scope.client, self._clock.monotonic())
            if self._app.guarded:
                self._app.admit(scope.method, scope.path, headers)
            length = headers("content-length")
            if length is None and scope.method in _CHUNKED_METHODS:
                self._task(self._unmeasured(watcher))
                return
            if length is None or length == "0":
                self._take(watcher, b"")
                return
            if int(length) > self._limits.body:
                raise _too_large(int(length), self._limits.body)  # noqa: TRY301
            coming = protocol()
            self._reading[id(protocol)] = (self._clock.monotonic(), protocol, coming)
            coming.add_done_callback(partial(self._arrived, watcher, protocol))
        except RequestError as error:
            self._app.refuse(error, protocol.response_bytes)
        except Exception as error:  # the client has gone, mostly; Granian logs and closes.
            watcher.err(error)

    def _arrived(self, watcher: Any, protocol: Any, body: Any) -> None:
        """Goes on with a request whose body is there, or will never be."""
        self._reading.pop(id(protocol), None)
        try:
            self._take(watcher, body.result())
        except RSGIProtocolClosed:
            self._short(protocol)
        except asyncio.CancelledError:
            return  # it was cut, and told so.
        except Exception as error:  # as in `_begin`
            watcher.err(error)

    async def _unmeasured(self, watcher: Any) -> None:
        """Reads a body that does not say its length."""
        try:
            self._take(watcher, await self._chunks(watcher.proto))
        except RequestError as error:
            self._app.refuse(error, watcher.proto.response_bytes)
        except RSGIProtocolClosed:
            self._short(watcher.proto)
        except asyncio.CancelledError:
            return  # as in `_arrived`
        except Exception as error:  # as in `_begin`
            watcher.err(error)

    def _take(self, watcher: Any, body: bytes) -> None:
        """Hands a whole request on, and drops it when its client leaves while it waits."""
        scope, protocol = watcher.scope, watcher.proto
        self._app.coming = len(self._reading)
        call = self._app.handle(scope.method, scope.path, scope.headers.get, body, protocol.response_bytes)
        if call is not None:
            _drop_when_gone(call, protocol)

    def _short(self, protocol: Any) -> None:
        """The client ended its side before its body was whole; it may still be listening."""
        error = RequestError("the body is cut short", status=408, where="body", rule="as long as announced")
        self._app.refuse(error, protocol.response_bytes)

    def _task(self, work: Coroutine[Any, Any, None]) -> None:
        if self._loop is None:
            raise ValueError("the door is not open")
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _chunks(self, protocol: Any) -> bytes:
        """A body that does not say its length, read no further than the limit."""
        key = id(protocol)
        self._reading[key] = (self._clock.monotonic(), protocol, asyncio.current_task())
        parts = []
        size = 0
        try:
            async for part in protocol:
                size += len(part)
                if size > self._limits.body:
                    raise _too_large(size, self._limits.body)
                parts.append(part)
        finally:
            self._reading.pop(key, None)
        return b"".join(parts)

    def _cut(self, loop: asyncio.AbstractEventLoop) -> None:
        """Answers clients that do not send the body they announced, which closes their connections."""
        now = self._clock.monotonic()
        for key, (since, protocol, coming) in list(self._reading.items()):
            if now - since > self._limits.body_seconds:
                late = RequestError("the body did not arrive in time", status=408, where="body",
                                    rule=f"within {self._limits.body_seconds:g} s")  # fmt: skip
                self._app.refuse(late, protocol.response_bytes)
                # Who still reads the body would keep the connection open.
                self._reading.pop(key, None)
                coming.cancel()
        if self._handshakes is not None:
            # It reads the process's files: not on the loop.
            loop.run_in_executor(None, self._handshakes.cut, now)
        self._watch = loop.call_later(1.0, self._cut, loop)


def _drop_when_gone(call: Call, protocol: Any) -> None:
    """Drops the call when its client leaves before the answer."""
    leaving = protocol.client_disconnect()
    answer = call.done

    def done(outputs: Tensors | None, error: ModelyardError | None) -> None:
        leaving.cancel()
        answer(outputs, error)

    def gone(_: Any) -> None:
        call.gone = True

    call.done = done
    leaving.add_done_callback(gone)


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


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _too_large(size: int, limit: int) -> RequestError:
    return RequestError("the body is too large", status=413, value=size, where="body",
                        rule=f"at most {limit} bytes")  # fmt: skip
