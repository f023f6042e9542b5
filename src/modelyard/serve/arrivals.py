"""Requests that wait for their endpoint to be loaded. Everything on the event loop's thread but `arrived`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from math import inf
from typing import Protocol

from modelyard.core.clock import Clock
from modelyard.core.errors import RequestError
from modelyard.serve.router import Router

Then = Callable[[RequestError | None], None]
"""Called once: the endpoint is there, or why not. Must not raise."""


class Loading(Protocol):
    """Who loads."""

    def want(self, name: str) -> None:
        """Has an endpoint loaded, once however often it is asked for."""
        ...

    def trouble(self, name: str) -> RequestError | None:
        """Why it is no use to wait for an endpoint now."""
        ...

    def state(self, name: str) -> str:
        """Where it stands: `unknown` until the store was asked, `loading` while there is more to come."""
        ...


class _Waiter:
    __slots__ = ("late", "then", "timer")

    def __init__(self, then: Then, *, late: bool) -> None:
        self.then = then
        self.late = late
        self.timer: asyncio.TimerHandle | None = None


class Arrivals:
    """Holds requests until their endpoint is in memory, `seconds` at most, `room` of them at most."""

    def __init__(
        self,
        router: Router,
        loading: Loading,
        loop: asyncio.AbstractEventLoop,
        clock: Clock,
        *,
        seconds: float,
        room: int = 1_024,
    ) -> None:
        self._router = router
        self._loading = loading
        self._loop = loop
        self._clock = clock
        self._seconds = seconds
        self._room = room
        self._waiting: dict[str, list[_Waiter]] = {}
        self.count = 0
        """Requests that wait."""

    def wait(self, name: str, deadline: float, then: Then) -> None:
        """Has an endpoint loaded; `then` is called later, never from here.

        Raises `RequestError` 503 at once when it failed just now or too many wait, 504 when the deadline
        (of the monotonic clock) has passed.
        """
        trouble = self._loading.trouble(name)
        if trouble is not None:
            raise trouble
        if self.count >= self._room:
            raise RequestError("too many requests wait for endpoints to be loaded", status=503,
                               value=name, rule=f"at most {self._room}", fix="try again later",
                               retry_after=1.0)  # fmt: skip
        left = deadline - self._clock.monotonic()
        if left <= 0:
            raise _late()
        waiter = _Waiter(then, late=left <= self._seconds)
        waiter.timer = self._loop.call_later(min(left, self._seconds), self._give_up, name, waiter)
        self._waiting.setdefault(name, []).append(waiter)
        self.count += 1
        self._loading.want(name)

    async def ready(self, name: str, deadline: float = inf) -> None:
        """Returns once the endpoint is in memory; raises as `wait`, and what `then` would be told."""
        arrival: asyncio.Future[None] = self._loop.create_future()

        def then(error: RequestError | None) -> None:
            if arrival.done():  # the caller has gone.
                return
            if error is None:
                arrival.set_result(None)
            else:
                arrival.set_exception(error)

        self.wait(name, deadline, then)
        await arrival

    def waits(self, name: str) -> bool:
        """Whether requests wait for an endpoint; from any thread."""
        return name in self._waiting

    def arrived(self, name: str) -> None:
        """An endpoint was loaded, refused or forgotten; from any thread."""
        if name in self._waiting:
            try:
                self._loop.call_soon_threadsafe(self._settle, name)
            except RuntimeError:  # the loop has ended, and whoever waited with it.
                return

    def _settle(self, name: str) -> None:
        error: RequestError | None = None
        if name not in self._router.endpoints:
            error = self._loading.trouble(name)
            if error is None and name in self._router.expected:
                # Evicted again, or its policy changed as it was loaded: those who wait go on waiting.
                if name in self._waiting and self._loading.state(name) not in ("unknown", "loading"):
                    self._loading.want(name)
                return
            if error is None:
                error = RequestError("the endpoint was unloaded", status=404, value=name)
        for waiter in self._waiting.pop(name, ()):
            self._end(waiter, error)

    def _give_up(self, name: str, waiter: _Waiter) -> None:
        waiting = self._waiting.get(name, [])
        if waiter not in waiting:
            return
        waiting.remove(waiter)
        if not waiting:
            del self._waiting[name]
        late = RequestError("the endpoint is still loading", status=503, value=name,
                            rule=f"within {self._seconds:g} s", retry_after=max(1.0, self._seconds / 2),
                            fix="try again later")  # fmt: skip
        self._end(waiter, _late() if waiter.late else late)

    def _end(self, waiter: _Waiter, error: RequestError | None) -> None:
        self.count -= 1
        if waiter.timer is not None:
            waiter.timer.cancel()
        waiter.then(error)


def _late() -> RequestError:
    return RequestError("the deadline passed while the endpoint was loaded", status=504,
                        rule="an answer within the client's timeout",
                        fix="try again, or allow more time")  # fmt: skip
