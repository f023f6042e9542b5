"""Time as a value that is passed in, so that tests never wait for it."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """What tells the time. Implementations must never go backwards in `monotonic`."""

    def now(self) -> float:
        """Seconds since 1970 in UTC."""
        ...

    def monotonic(self) -> float:
        """Seconds from an arbitrary start, for durations."""
        ...


class SystemClock:
    """The machine's clocks."""

    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.perf_counter()


class ManualClock:
    """A clock that moves when told to.

    >>> clock = ManualClock(10.0)
    >>> clock.advance(2.5)
    >>> clock.now(), clock.monotonic()
    (12.5, 12.5)
    """

    def __init__(self, start: float = 0.0) -> None:
        self._time = start

    def now(self) -> float:
        return self._time

    def monotonic(self) -> float:
        return self._time

    def advance(self, seconds: float) -> None:
        """Moves the clock on; a negative step is refused with `ValueError`."""
        if seconds < 0:
            raise ValueError("a clock does not go backwards")
        self._time += seconds


SYSTEM_CLOCK = SystemClock()


def iso(seconds: float) -> str:
    """A time as RFC 3339 in UTC with microseconds.

    >>> iso(0.5)
    '1970-01-01T00:00:00.500000Z'
    """
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def from_iso(text: str) -> float:
    """Seconds since 1970 of an RFC 3339 time; raises `ValueError` when it is none.

    >>> from_iso("1970-01-01T00:00:00.500000Z")
    0.5
    """
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()
