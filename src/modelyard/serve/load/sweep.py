"""Latency against load: an open loop at rates up to and past what the server can answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from modelyard.core.progress import Progress, quiet
from modelyard.serve.load.result import LoadResult

SHARES = (0.1, 0.25, 0.4, 0.55, 0.7, 0.8, 0.9, 1.0, 1.2)
"""Rates of a sweep, as shares of the capacity that a closed loop found."""

Measure = Callable[[float, Progress], LoadResult]
"""Runs an open loop at a rate."""


@dataclass(frozen=True, slots=True)
class Sweep:
    """Runs at several rates, slowest first, and the closed loop's throughput that the rates come from."""

    capacity: float
    points: tuple[LoadResult, ...]

    @property
    def knee(self) -> float | None:
        """The highest rate that was kept up with; `None` when none was.

        Kept up: 99 % answered well, and no backlog left at the end that took a tenth of the time more.
        """
        fine = [
            point.rate
            for point in self.points
            if point.sent and point.good >= 0.99 * point.sent and point.overtime <= 0.1 * point.seconds
        ]
        return max(fine, default=None)

    def to_json(self) -> dict[str, Any]:
        points = [point.to_json() for point in self.points]
        return {"capacity": self.capacity, "knee": self.knee, "points": points}


def rates_of(capacity: float, shares: Sequence[float] = SHARES) -> tuple[float, ...]:
    """The rates of a sweep, at least one a second each, in order.

    >>> rates_of(1000, (0.5, 0.1, 1.2))
    (100.0, 500.0, 1200.0)
    """
    return tuple(sorted({max(1.0, float(f"{capacity * share:.3g}")) for share in shares}))


def sweep(measure: Measure, capacity: float, rates: Sequence[float], *, progress: Progress = quiet) -> Sweep:
    """Measures each rate in turn."""
    points: list[LoadResult] = []
    for index, rate in enumerate(sorted(rates)):

        def told(fraction: float, text: str, index: int = index, rate: float = rate) -> None:
            progress((index + fraction) / len(rates), f"{rate:.0f} a second: {text}")

        points.append(measure(rate, told))
    return Sweep(capacity, tuple(points))
