"""When an open loop sends: intended times that do not wait for answers, and the machine that keeps them."""

from __future__ import annotations

from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

Arrivals: TypeAlias = Literal["poisson", "constant"]
MAX_REQUESTS = 50_000_000


def arrivals(kind: Arrivals, rate: float, seconds: float, *, seed: int = 0) -> npt.NDArray[np.float64]:
    """Intended send times in seconds from the start, sorted, all below `seconds`.

    `constant` spaces them evenly; `poisson` draws independent exponential gaps, which is how requests of
    many independent users come. Raises `ValueError` for a rate or time that is not positive or too large.

    >>> arrivals("constant", 4, 1).tolist()
    [0.0, 0.25, 0.5, 0.75]
    """
    if not (rate > 0 and seconds > 0 and rate * seconds <= MAX_REQUESTS):
        raise ValueError(f"rate and time must be positive, with at most {MAX_REQUESTS} requests")
    if kind == "constant":
        return np.arange(int(np.ceil(rate * seconds - 1e-9))) / rate
    rng = np.random.default_rng(seed)
    expected = rate * seconds
    times = np.zeros(0)
    while times.size == 0 or times[-1] < seconds:
        last = times[-1] if times.size else 0.0
        gaps = rng.exponential(1 / rate, int(expected + 6 * np.sqrt(expected)) + 16)
        times = np.concatenate([times, last + np.cumsum(gaps)])
    return times[times < seconds]


class OpenLoop:
    """Which requests are due, by the clock alone: a slow server delays answers, never the next question.

    >>> loop = OpenLoop(arrivals("constant", 10, 0.3))
    >>> loop.due(0.15), loop.next, loop.due(0.15), loop.due(9.0), loop.next
    ([0.0, 0.1], 0.2, [], [0.2], None)
    """

    def __init__(self, times: npt.NDArray[np.float64]) -> None:
        self._times: list[float] = times.tolist()
        self._at = 0

    @property
    def next(self) -> float | None:
        """The intended time of the next request; `None` when all were due."""
        return self._times[self._at] if self._at < len(self._times) else None

    @property
    def total(self) -> int:
        return len(self._times)

    def due(self, now: float) -> list[float]:
        """The intended times up to `now` that were not given out yet."""
        at, times, count = self._at, self._times, len(self._times)
        while self._at < count and times[self._at] <= now:
            self._at += 1
        return times[at : self._at]
