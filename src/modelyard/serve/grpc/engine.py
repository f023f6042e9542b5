"""grpcio's core without its Python servers: calls come to a callback, answers go from the event loop.

`grpc.aio` makes a task and four wake-ups of the loop a call, `grpc.server` keeps a thread for each call that
waits. Here one thread waits for the core's events, and the loop hears of a call when its message is there.
The classes are those that grpcio's own `_server.py` is written with (1.85); they are not public, so `open`
looks first whether they are still what we know.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any

from modelyard.core.errors import ServeError
from modelyard.core.require import require
from modelyard.serve.grpc.status import OK, Status, status_of

_LOG = logging.getLogger("modelyard.serve")

_NEEDED = (
    "CompletionQueue", "Server", "CompletionType", "ReceiveMessageOperation", "ReceiveCloseOnServerOperation",
    "SendInitialMetadataOperation", "SendMessageOperation", "SendStatusFromServerOperation",
)  # fmt: skip

Trailing = Sequence[tuple[str, str]]


class Rpc:
    """One call. Its methods are for the loop's thread; what they are given is called there too."""

    __slots__ = (
        "_call",
        "_core",
        "_engine",
        "_heard",
        "_sent",
        "_watched",
        "data",
        "deadline",
        "ended",
        "metadata",
        "method",
        "on_gone",
        "opened",
    )  # fmt: skip

    def __init__(self, engine: Engine, event: Any) -> None:
        self._engine = engine
        self._core = engine.core
        self._call = event.call
        self._watched = False
        self._heard: Callable[[bytes | None], None] | None = None
        self._sent: Callable[[bool], None] | None = None
        self.on_gone: Callable[[], None] | None = None
        self.method: bytes = event.call_details.method
        self.deadline: float = event.call_details.deadline
        """When the client waits no more: seconds since 1970, infinite for one that is patient."""
        self.metadata: Sequence[tuple[str, str | bytes]] = event.invocation_metadata
        self.data: bytes | None = None
        """The message of a unary call, `None` where none came."""
        self.ended = False
        self.opened = False
        """Whether the initial metadata is sent."""

    def header(self, name: str) -> str | None:
        """The value of a text header by its lower-case name."""
        for key, value in self.metadata:
            if key == name:
                return value if isinstance(value, str) else None
        return None

    def answer(self, message: bytes, trailing: Trailing = ()) -> None:
        """Sends the one message of a unary call, and that all is well."""
        self._finish(OK, "", trailing, message)

    def end(self, status: Status, details: str = "", trailing: Trailing = ()) -> None:
        """Ends the call with a status; of several only the first counts."""
        self._finish(status, details, trailing, None)

    def watch(self, gone: Callable[[], None]) -> None:
        """Has `gone` called when the client leaves before the call has ended."""
        self.on_gone = gone
        if not self._watched and not self.ended:
            self._watched = True
            close = self._core.ReceiveCloseOnServerOperation(0)
            self._call.start_server_batch((close,), self._closed)

    def receive(self, heard: Callable[[bytes | None], None]) -> None:
        """Asks for the client's next message; `None` is the end of them."""
        self._heard = heard
        self._call.start_server_batch((self._core.ReceiveMessageOperation(0),), self._next)

    def send(self, message: bytes, sent: Callable[[bool], None]) -> None:
        """Sends one message of several; the next one only after `sent` has said that it went out."""
        self._sent = sent
        core = self._core
        operations: list[Any] = [core.SendMessageOperation(message, 0)]
        if not self.opened:
            self.opened = True
            operations.insert(0, core.SendInitialMetadataOperation((), 0))
        self._call.start_server_batch(operations, self._went)

    def first(self) -> None:
        """Asks for the message of a unary call; on the engine's thread."""
        self._call.start_server_batch((self._core.ReceiveMessageOperation(0),), self._arrived)

    def _finish(self, status: Status, details: str, trailing: Trailing, message: bytes | None) -> None:
        if self.ended:
            return
        self.ended = True
        core = self._core
        operations: list[Any] = []
        if not self._watched:
            operations.append(core.ReceiveCloseOnServerOperation(0))
        if not self.opened:
            operations.append(core.SendInitialMetadataOperation((), 0))
        if message is not None:
            operations.append(core.SendMessageOperation(message, 0))
        operations.append(core.SendStatusFromServerOperation(trailing, status.number, details.encode(), 0))
        self._call.start_server_batch(operations, self._over)

    # From here on: the engine's thread, when the core has done what it was asked for.

    def _arrived(self, event: Any) -> None:
        self.data = event.batch_operations[0].message()
        self._engine.arrived(self)

    def _next(self, event: Any) -> None:
        if self._heard is not None:
            self._engine.hand(self._heard, event.batch_operations[0].message())

    def _went(self, event: Any) -> None:
        if self._sent is not None:
            self._engine.hand(self._sent, event.success)

    def _closed(self, event: Any) -> None:
        if event.batch_operations[0].cancelled() and self.on_gone is not None:
            self._engine.hand(_call, self.on_gone)

    def _over(self, event: Any) -> None:
        self._engine.over()


class Engine:
    """Takes calls on one address, from `start` to `close`, and begins each on the event loop.

    `begin` gets a unary call when its message is there, and one of `streams` at once; it must not raise.
    More than `most` calls at a time are refused, and one whose message takes longer than `seconds`.
    """

    def __init__(
        self,
        begin: Callable[[Rpc], None],
        *,
        streams: frozenset[bytes],
        most: int,
        seconds: float,
        options: Sequence[tuple[str, int]],
    ) -> None:
        self.core: Any = require("grpc._cython.cygrpc", extra="grpc")
        missing = [name for name in _NEEDED if not hasattr(self.core, name)]
        if missing:
            raise ServeError("this version of grpcio is not one that the gRPC door knows", value=missing[0],
                             fix="install the version that this package was tested with")  # fmt: skip
        self._begin = begin
        self._streams = streams
        self._most = most
        self._seconds = seconds
        self._queue: Any = self.core.CompletionQueue()
        self._server: Any = self.core.Server(list(options), False)
        self._server.register_completion_queue(self._queue)
        self._ready: deque[tuple[Callable[[Any], None], Any]] = deque()
        self._woken = False
        self._waiting: dict[Rpc, float] = {}
        self._open = 0
        self._asking = False
        self._shut = False
        self._cutter: asyncio.TimerHandle | None = None

    def listen(self, address: str, credentials: Any = None) -> int:
        """The port that is listened on, 0 when the address is taken."""
        where = address.encode()
        if credentials is None:
            return int(self._server.add_http2_port(where))
        return int(self._server.add_http2_port(where, credentials._credentials))

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begins to take calls."""
        self._loop = loop
        self._soon = loop.call_soon_threadsafe
        self._ended = loop.create_future()
        self._server.start()
        self._ask()
        threading.Thread(target=self._poll, name="grpc", daemon=True).start()
        self._cutter = loop.call_later(1.0, self._cut)

    async def close(self, grace: float) -> None:
        """Takes no more calls, and ends those that are open after `grace` seconds."""
        if self._cutter is not None:
            self._cutter.cancel()
        self._server.shutdown(self._queue, self._stopped)
        await asyncio.wait([self._ended], timeout=grace)
        if not self._ended.done():
            self._server.cancel_all_calls()
            await asyncio.wait([self._ended], timeout=1.0)

    def _cut(self) -> None:
        """Ends calls whose messages do not come."""
        now = monotonic()
        for rpc, since in list(self._waiting.items()):
            if now - since > self._seconds and self._waiting.pop(rpc, None) is not None:
                rpc.end(status_of(408), f"the message did not arrive within {self._seconds:g} s")
        self._cutter = self._loop.call_later(1.0, self._cut)

    def _destroy(self, _: None) -> None:
        # Here and not on the engine's thread, which may hear the end of a `shutdown` that has not returned.
        self._server.destroy()
        self._queue.shutdown()

    def _drain(self) -> None:
        self._woken = False
        ready = self._ready
        while ready:
            do, what = ready.popleft()
            try:
                do(what)
            except Exception:  # as everywhere on the loop: a bug must cost one call.
                _LOG.exception("a gRPC call failed in a way that was not foreseen")

    # From here on: the engine's own thread.

    def hand(self, do: Callable[[Any], None], what: Any) -> None:
        """Has something done on the loop, in order."""
        self._ready.append((do, what))
        if not self._woken:
            self._woken = True
            try:
                self._soon(self._drain)
            except RuntimeError:  # the loop has ended, and whoever waited with it.
                _LOG.debug("a gRPC call came after the end")

    def arrived(self, rpc: Rpc) -> None:
        """The message of a unary call is there, or will never be."""
        self._waiting.pop(rpc, None)
        if not rpc.ended:
            self.hand(self._begin, rpc)

    def over(self) -> None:
        """A call has ended, and all of it is sent."""
        self._open -= 1
        self._end()

    def _poll(self) -> None:
        poll, last = self._queue.poll, self.core.CompletionType.queue_shutdown
        while True:
            event = poll()
            if event.completion_type == last:
                break
            try:
                event.tag(event)
            except Exception:  # one call's, and the thread is everybody's.
                _LOG.exception("an event of gRPC failed in a way that was not foreseen")
            # The call must be let go before the next wait.
            event = None
        try:
            self._soon(_settle, self._ended)
        except RuntimeError:
            _LOG.debug("gRPC ended after the loop")

    def _ask(self) -> None:
        """Asks the core for the next call."""
        try:
            self._server.request_call(self._queue, self._queue, self._came)
            self._asking = True
        except ValueError:  # the server has begun to shut down.
            self._asking = False

    def _came(self, event: Any) -> None:
        self._asking = False
        if not event.success:
            self._end()
            return
        self._ask()
        rpc = Rpc(self, event)
        self._open += 1
        if self._open > self._most:
            rpc.end(status_of(429), f"more than {self._most} calls at a time",
                    (("grpc-retry-pushback-ms", "1000"),))  # fmt: skip
        elif rpc.method in self._streams:
            self.hand(self._begin, rpc)
        else:
            self._waiting[rpc] = monotonic()
            rpc.first()

    def _stopped(self, event: Any) -> None:
        self._shut = True
        self._end()

    def _end(self) -> None:
        if self._shut and not self._open and not self._asking:
            self._shut = False
            self.hand(self._destroy, None)


def _call(do: Callable[[], None]) -> None:
    do()


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
