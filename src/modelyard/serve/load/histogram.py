"""Latencies in logarithmic buckets: fixed size, bounded relative error, exact to merge."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

FORMAT = 1
"""Version of the stored form; raise it when the buckets change."""

_BITS = 7
_SUB = 1 << _BITS
_LOWEST = 1e-9
_OCTAVES = 42
BUCKETS = _OCTAVES * _SUB
ERROR = 1.0 / _SUB
"""A quantile is at most this fraction above the true value."""


@dataclass(frozen=True, slots=True)
class Histogram:
    """Counts of durations from 1 ns to over an hour, 128 linear steps in each power of two of nanoseconds.

    The layout follows HdrHistogram (G. Tene). Merging adds counts, so the merge of parts equals the whole.

    >>> merged = Histogram.of([0.001, 0.002]).merge(Histogram.of([0.003]))
    >>> merged.total, merged == Histogram.of([0.001, 0.002, 0.003])
    (3, True)
    """

    counts: Mapping[int, int] = field(default_factory=dict)
    total: int = 0
    sum: float = 0.0
    """Nanoseconds, whole, so that a merge in any order is exact."""
    smallest: float = float("inf")
    largest: float = 0.0

    @staticmethod
    def of(seconds: npt.ArrayLike) -> Histogram:
        """The histogram of durations in seconds; negative ones count as zero."""
        values = np.maximum(np.asarray(seconds, dtype=np.float64).ravel(), 0.0)
        if values.size == 0:
            return Histogram()
        if not np.isfinite(values).all():
            raise ValueError("a duration is a finite number")
        places, counts = np.unique(_bucket(values), return_counts=True)
        return Histogram(
            dict(zip(places.tolist(), counts.tolist(), strict=True)),
            int(values.size),
            float(np.rint(values * 1e9).sum()),
            float(values.min()),
            float(values.max()),
        )

    def merge(self, other: Histogram) -> Histogram:
        """The histogram of both; exact."""
        counts = dict(self.counts)
        for place, count in other.counts.items():
            counts[place] = counts.get(place, 0) + count
        return Histogram(
            dict(sorted(counts.items())),
            self.total + other.total,
            self.sum + other.sum,
            min(self.smallest, other.smallest),
            max(self.largest, other.largest),
        )

    def quantile(self, fraction: float) -> float:
        """The least duration that at least `fraction` of all do not exceed, in seconds; NaN when empty.

        At most `ERROR` above the true order statistic, never below it by more than a nanosecond, never
        above the largest.
        """
        if not 0 <= fraction <= 1:
            raise ValueError(f"a fraction is 0 to 1, not {fraction}")
        if self.total == 0:
            return float("nan")
        # A billionth of slack: 0.999 * 1000 is a little above 999 in floating point.
        rank = max(1, int(np.ceil(fraction * self.total - 1e-9 * self.total)))
        seen = 0
        for place in sorted(self.counts):
            seen += self.counts[place]
            if seen >= rank:
                return min(_upper(place), self.largest)
        return self.largest

    @property
    def mean(self) -> float:
        return self.sum / self.total / 1e9 if self.total else float("nan")

    def to_json(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "counts": [[place, count] for place, count in sorted(self.counts.items())],
            "sum": self.sum,
            "smallest": self.smallest if self.total else 0.0,
            "largest": self.largest,
        }

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> Histogram:
        if value.get("format") != FORMAT:
            raise ValueError(f"the histogram is of version {value.get('format')!r}, not {FORMAT}")
        counts = {int(place): int(count) for place, count in value["counts"]}
        total = sum(counts.values())
        if any(not 0 <= place < BUCKETS or count < 1 for place, count in counts.items()):
            raise ValueError("a bucket or a count of the histogram is out of range")
        smallest = float(value["smallest"]) if total else float("inf")
        return Histogram(counts, total, float(value["sum"]), smallest, float(value["largest"]))


def _bucket(seconds: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """The bucket of each duration: the power of two, then the step within it."""
    nano = np.maximum(seconds / _LOWEST, 1.0)
    mantissa, exponent = np.frexp(nano)  # nano = mantissa * 2**exponent, mantissa in [0.5, 1)
    step = np.floor((mantissa * 2 - 1) * _SUB).astype(np.int64)
    place: npt.NDArray[np.int64] = (exponent.astype(np.int64) - 1) * _SUB + step
    return np.minimum(place, BUCKETS - 1)


def _upper(place: int) -> float:
    """The upper end of a bucket in seconds."""
    octave, step = divmod(place, _SUB)
    return float(_LOWEST * 2.0**octave * (1 + (step + 1) / _SUB))
