"""Two sketches over the same buckets."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from modelyard.data.columnprofile import NumericProfile
from modelyard.data.sketch import Sketch

Counts = npt.NDArray[np.float64]

_SAME = 1e-5


def aligned(
    reference: NumericProfile, window: NumericProfile
) -> tuple[npt.NDArray[np.int64], Counts, Counts] | None:
    """The bucket numbers that occur, ascending, and both sides' counts in them; `None` when incomparable.

    Values are compared rounded to their buckets, so that no interpolation moves a value that many rows
    share. The bucket of the anchor takes in its next neighbours: 0.1 as float32 in live traffic is not the
    0.1 of a float64 in training.
    """
    if reference.sketch.anchor != window.sketch.anchor or not reference.finite or not window.finite:
        return None
    sides = [
        (_keys(side), np.array(side.counts, dtype=np.float64)) for side in (reference.sketch, window.sketch)
    ]
    keys, places = np.unique(np.concatenate([sides[0][0], sides[1][0]]), return_inverse=True)
    split = len(sides[0][0])
    first = _summed(places[:split], sides[0][1], len(keys))
    second = _summed(places[split:], sides[1][1], len(keys))
    return keys, first, second


def _keys(side: Sketch) -> npt.NDArray[np.int64]:
    keys = np.array(side.keys, dtype=np.int64)
    if side.anchor == 0.0:
        return keys
    distance = np.abs(side.values()[0] - side.anchor)
    return np.where(distance <= abs(side.anchor) * _SAME, 0, keys)


def grouped(first: Counts, second: Counts, bins: int) -> tuple[Counts, Counts]:
    """Both counts in at most `bins` groups of neighbours that hold about equal shares of the first."""
    before = np.cumsum(first) - first
    group = np.minimum((before / first.sum() * bins).astype(np.int64), bins - 1)
    return _summed(group, first, bins), _summed(group, second, bins)


def _summed(places: npt.NDArray[np.int64], counts: Counts, size: int) -> Counts:
    return np.asarray(np.bincount(places, weights=counts, minlength=size), dtype=np.float64)
