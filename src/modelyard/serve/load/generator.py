"""The load generator: one event loop, raw protocols, no task or future for any request."""

from __future__ import annotations

import asyncio
import contextlib
import math
import ssl
import time
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from itertools import cycle
from typing import Any

from modelyard.core.errors import ServeError
from modelyard.core.progress import Progress, quiet
from modelyard.serve.load.connection import Connection
from modelyard.serve.load.result import LoadResult, Mode
from modelyard.serve.load.schedule import Arrivals, OpenLoop, arrivals
from modelyard.serve.load.tally import Tally
from modelyard.serve.load.target import Target, address
from modelyard.serve.load.timer import FineTimer


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """How to load. `seconds` are measured, after `warmup` seconds that are not.

    `connections` is how many a closed loop keeps busy, and how many an open loop may open. `deadline` bounds
    what counts as good. `timeout` ends the wait for answers after the last request was due.
    """

    seconds: float = 10.0
    warmup: float = 1.0
    connections: int = 64
    deadline: float = math.inf
    timeout: float = 10.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not (self.seconds > 0 and self.warmup >= 0 and self.timeout > 0 and self.deadline > 0):
            raise ValueError("times must be positive")
        if not 1 <= self.connections <= 20_000:
            raise ValueError(f"{self.connections} connections: 1 to 20000")


def closed_loop(target: Target, options: LoadOptions, *, progress: Progress = quiet) -> LoadResult:
    """Keeps `connections` requests under way: each answer is followed by the next question at once."""
    return _run(lambda: _Run(target, options, None, progress).go())


def open_loop(
    target: Target,
    options: LoadOptions,
    rate: float,
    *,
    kind: Arrivals = "poisson",
    progress: Progress = quiet,
) -> LoadResult:
    """Sends at a rate of `rate` a second that does not depend on the answers."""
    times = arrivals(kind, rate, options.warmup + options.seconds, seed=options.seed)
    return _run(lambda: _Run(target, options, OpenLoop(times), progress, rate).go())


def _run(make: Callable[[], Coroutine[Any, Any, LoadResult]]) -> LoadResult:
    factory: Callable[[], asyncio.AbstractEventLoop] | None = None
    try:
        import uvloop

        factory = uvloop.new_event_loop
    except ModuleNotFoundError:
        pass
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(make())


class _Run:
    """One run of either loop; lives on its event loop."""

    def __init__(
        self,
        target: Target,
        options: LoadOptions,
        plan: OpenLoop | None,
        progress: Progress,
        rate: float = 0.0,
    ) -> None:
        self._target = target
        self._options = options
        self._plan = plan
        self._rate = rate
        self._progress = progress
        self._requests = cycle(target.requests)
        self._idle: list[Connection] = []
        self._all: set[Connection] = set()
        self._queue: deque[float] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._opening = 0
        self._refused = ""
        self._began = 0.0
        self._ends = 0.0
        self._clock = time.monotonic
        self._finished: asyncio.Event | None = None

    async def go(self) -> LoadResult:
        options = self._options
        loop = self._loop = asyncio.get_running_loop()
        self._where = address(self._target)
        self._tls = ssl.create_default_context() if self._target.secure else None
        self._finished = asyncio.Event()
        # An open loop grows its connections when all are busy; it begins with a few.
        first = options.connections if self._plan is None else min(options.connections, 16)
        self._opening = first
        await asyncio.gather(*(self._connect() for _ in range(first)))
        if not self._all:
            raise ServeError("the server cannot be reached", value=self._target.host, fix=self._refused)
        self._began = self._clock() + 0.01
        self._ends = self._began + options.warmup + options.seconds
        self._tally = Tally(since=self._began + options.warmup, deadline=options.deadline)
        ticker = loop.create_task(self._tick())
        timer = FineTimer(loop, self._due)
        self._timer = timer
        processor, wall = time.process_time(), self._clock()
        try:
            if self._plan is None:
                for connection in list(self._idle):
                    self._next(connection, self._clock())
            else:
                timer.at(self._began)
            last = self._ends + (0.0 if self._plan is None else options.timeout)
            await self._until(last)
        finally:
            busy = (time.process_time() - processor) / max(self._clock() - wall, 1e-9)
            used = len(self._all)
            timer.close()
            ticker.cancel()
            self._close()
        mode: Mode = "closed" if self._plan is None else "open"
        return self._tally.result(mode, self._rate, used, options.seconds, busy)

    async def _until(self, last: float) -> None:
        if self._finished is not None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._finished.wait(), max(0.0, last - self._clock()))

    async def _tick(self) -> None:
        whole = self._ends - self._began
        while True:
            await asyncio.sleep(0.25)
            gone = self._clock() - self._began
            self._progress(min(1.0, gone / whole), f"{self._tally.sent} sent")

    async def _connect(self) -> None:
        try:
            async with asyncio.timeout(self._options.timeout):
                _, connection = await self._loop.create_connection(
                    lambda: Connection(self._done), *self._where, ssl=self._tls,
                    server_hostname=self._target.host if self._tls else None,
                )  # fmt: skip
        except (OSError, TimeoutError) as error:
            self._refused = str(error) or type(error).__name__
            if self._began and self._queue and self._opening == 1 and not self._alive():
                # Nobody is left to send for: these requests fail here, not silently.
                now = self._clock()
                while self._queue:
                    self._tally.done(self._queue.popleft(), now, now, 0, "no connection could be made")
                self._check()
            return
        finally:
            self._opening -= 1
        self._all.add(connection)
        self._free(connection)

    def _alive(self) -> bool:
        return any(connection.open for connection in self._all)

    def _due(self) -> None:
        """An open loop's timer: sends what is due, and sets the timer for what is next."""
        plan = self._plan
        if plan is None:
            return
        now = self._clock()
        for offset in plan.due(now - self._began):
            intended = self._began + offset
            self._tally.late(intended, now)
            self._tally.count_sent(intended)
            self._place(intended)
        if plan.next is not None:
            self._timer.at(self._began + plan.next)
        else:
            self._check()

    def _place(self, intended: float) -> None:
        while self._idle:
            connection = self._idle.pop()
            if connection.open:
                self._send(connection, intended)
                return
            self._all.discard(connection)
        self._queue.append(intended)
        if self._opening < len(self._queue) and len(self._all) + self._opening < self._options.connections:
            self._spawn()

    def _spawn(self) -> None:
        self._opening += 1
        task = self._loop.create_task(self._connect())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _send(self, connection: Connection, intended: float) -> None:
        connection.intended = intended
        connection.sent = self._clock()
        connection.send(next(self._requests))

    def _done(self, connection: Connection, status: int, why: str) -> None:
        now = self._clock()
        self._tally.done(connection.intended, connection.sent, now, status, why)
        if connection.open:
            self._free(connection, now)
            return
        self._all.discard(connection)
        if now < self._ends and (self._plan is None or self._queue):
            self._spawn()
        self._check()

    def _free(self, connection: Connection, now: float | None = None) -> None:
        if self._plan is None:
            if self._began:
                self._next(connection, self._clock() if now is None else now)
            else:
                self._idle.append(connection)
        elif self._queue:
            self._send(connection, self._queue.popleft())
        else:
            self._idle.append(connection)
            self._check()

    def _next(self, connection: Connection, now: float) -> None:
        """A closed loop's next question."""
        if now < self._ends:
            self._tally.count_sent(now)
            self._send(connection, now)

    def _check(self) -> None:
        """Ends an open loop when all is sent and answered."""
        if self._plan is None or self._plan.next is not None or self._queue or self._finished is None:
            return
        if not any(connection.waiting for connection in self._all):
            self._finished.set()

    def _close(self) -> None:
        """Cuts what is under way: an open loop gives it up and counts it, a closed loop just ends."""
        now = self._clock()
        for intended in self._queue:
            self._tally.gave_up(intended, now, "no free connection")
        self._queue.clear()
        for connection in list(self._all):
            if connection.waiting:
                if self._plan is not None:
                    self._tally.gave_up(connection.intended, now, "no answer in time")
                connection.intended = -math.inf
            connection.abort("the run has ended")
        for task in self._tasks:
            task.cancel()
