"""A fixed-size summary of a distribution that merges without loss and bounds every quantile's error.

DDSketch (Masson, Rim and Lee, VLDB 2019): a value falls into the bucket of its logarithm, so that every
quantile is known to within 1 %, and two sketches merge by adding counts. Ours measures distances from an
anchor instead of from 0, because 1 % of the year 2026 would be twenty years.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

ACCURACY = 0.01
"""The largest relative error of a quantile's distance from the anchor."""

_GAMMA = (1 + ACCURACY) / (1 - ACCURACY)
_LOG = math.log(_GAMMA)
_LOW = math.ceil(math.log(1e-12) / _LOG)
_HIGH = math.ceil(math.log(1e15) / _LOG)
BUCKETS = 2 * (_HIGH - _LOW + 1) + 1
"""How many buckets there can be: distances from 1e-12 to 1e15, both signs, and zero."""


@dataclass(frozen=True, slots=True)
class Sketch:
    """Counts of finite values in buckets of the logarithm of their distance from `anchor`.

    `keys` are bucket numbers in the order of the values they hold (0 is the anchor itself, negative lies
    below it) and `counts` how many fell there; at most `BUCKETS` of them. Distances under 1e-12 count
    as 0 and those over 1e15 as 1e15.

    >>> round(Sketch.of(np.arange(1.0, 1001.0)).quantile(0.5), 1)
    497.8
    """

    keys: tuple[int, ...] = ()
    counts: tuple[int, ...] = ()
    anchor: float = 0.0

    @staticmethod
    def of(values: npt.NDArray[Any], anchor: float = 0.0) -> Sketch:
        """The sketch of finite values."""
        keys, counts = np.unique(_keys(np.asarray(values, np.float64), anchor), return_counts=True)
        return Sketch(tuple(keys.tolist()), tuple(counts.tolist()), float(anchor))

    @property
    def total(self) -> int:
        """How many values were counted."""
        return sum(self.counts)

    def merge(self, other: Sketch) -> Sketch:
        """The sketch of both sets of values, exactly; another anchor is a `ValueError`."""
        if self.anchor != other.anchor:
            raise ValueError(f"sketches with the anchors {self.anchor} and {other.anchor} do not merge")
        sums = dict(zip(self.keys, self.counts, strict=True))
        for key, count in zip(other.keys, other.counts, strict=True):
            sums[key] = sums.get(key, 0) + count
        keys = sorted(sums)
        return Sketch(tuple(keys), tuple(sums[key] for key in keys), self.anchor)

    def values(self) -> tuple[Floats, npt.NDArray[np.int64]]:
        """One value for each bucket, ascending, and how many it stands for."""
        keys = np.array(self.keys, np.int64)
        with np.errstate(over="ignore"):
            distance = 2.0 * np.exp((np.abs(keys) - 1 + _LOW) * _LOG) / (_GAMMA + 1)
        values = self.anchor + np.where(keys == 0, 0.0, np.sign(keys) * distance)
        return values, np.array(self.counts, np.int64)

    def quantile(self, q: float) -> float:
        """The q-quantile (lower of the two order statistics) to within `ACCURACY`; NaN when empty."""
        if not 0 <= q <= 1:
            raise ValueError(f"{q} is not a probability")
        if not self.keys:
            return math.nan
        values, counts = self.values()
        place = int(np.searchsorted(np.cumsum(counts), math.floor(q * (self.total - 1)), side="right"))
        return float(values[place])

    def cdf(self, x: npt.ArrayLike) -> Floats:
        """The share of values in the bucket of `x` or below it, for each x; NaN when empty.

        That is the exact distribution function of the values rounded to their buckets. Compare two sketches
        of one anchor at `values()` of both for a Kolmogorov-Smirnov distance without interpolation.
        """
        points = np.asarray(x, np.float64)
        if not self.keys:
            return np.full(points.shape, np.nan)
        places = np.searchsorted(np.array(self.keys), _keys(points, self.anchor), side="right")
        sums = np.concatenate([[0], np.cumsum(self.counts)])
        return np.asarray(sums[places] / sums[-1], np.float64)

    def histogram(self, edges: npt.ArrayLike) -> npt.NDArray[np.int64]:
        """How many values lie between ascending edges (the last one inclusive), to within a bucket."""
        values, counts = self.values()
        totals, _ = np.histogram(values, bins=np.asarray(edges, np.float64), weights=counts)
        return totals.astype(np.int64)

    def to_json(self) -> dict[str, Any]:
        return {"anchor": self.anchor, "keys": list(self.keys), "counts": list(self.counts)}

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> Sketch:
        return Sketch(
            tuple(int(key) for key in value["keys"]),
            tuple(int(count) for count in value["counts"]),
            float(value["anchor"]),
        )


def anchor_of(minimum: float | None, maximum: float | None) -> float:
    """Where to measure from, given the promised range: the end of the range nearest to 0, or 0 inside it.

    >>> anchor_of(1950, 2026), anchor_of(-5, 5), anchor_of(None, -3)
    (1950.0, 0.0, -3.0)
    """
    if minimum is not None and minimum > 0 and math.isfinite(minimum):
        return float(minimum)
    if maximum is not None and maximum < 0 and math.isfinite(maximum):
        return float(maximum)
    return 0.0


def _keys(values: Floats, anchor: float) -> npt.NDArray[np.int64]:
    with np.errstate(divide="ignore", over="ignore"):
        distance = values - anchor
        # The tiny step back keeps exact powers, such as 1, in the bucket that they close.
        index = np.ceil(np.log(np.abs(distance)) / _LOG - 1e-9)
    place = np.clip(index, _LOW - 1, _HIGH) - (_LOW - 1)
    return np.asarray(np.sign(distance) * place, np.int64)
