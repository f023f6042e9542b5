"""Intervals by resampling rows, for any statistic that is written over row weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Floats: TypeAlias = npt.NDArray[np.float64]
Statistic: TypeAlias = Callable[[npt.NDArray[Any]], Floats]
"""Weights [B,N] -> the statistic's value under each row of weights [B]."""

RESAMPLES = 1000
_CHUNK = 2_000_000
_LARGE = 10_000
"""Above this many rows the estimate is normal for every smooth metric, and resampling only costs time."""


@dataclass(frozen=True, slots=True)
class Interval:
    """Both ends (`None` where the rows do not bear one) and how they were made."""

    low: float | None
    high: float | None
    method: str


def interval(
    statistic: Statistic, rows: int, value: float, *, confidence: float, seed: int, resamples: int = RESAMPLES
) -> Interval:
    """The interval of a statistic of `rows` independent rows whose value on all of them is `value`.

    Bias-corrected and accelerated bootstrap (Efron 1987) up to 10,000 rows, the delete-group jackknife with
    Student's t above (Shao and Tu 1995, chapter 2). The same seed gives the same interval.
    """
    if rows < 2:
        return Interval(None, None, "no interval: fewer than 2 rows")
    rng = np.random.default_rng(seed)
    if rows > _LARGE:
        return _normal(_jackknife(statistic, rows, 40, rng), value, confidence)
    drawn = np.concatenate([statistic(block) for block in _draws(rows, resamples, rng)])
    drawn = drawn[np.isfinite(drawn)]
    if len(drawn) < 0.9 * resamples:
        return Interval(None, None, "no interval: most resamples have no value")
    if np.ptp(drawn) == 0.0:
        return Interval(float(drawn[0]), float(drawn[0]), "bootstrap-degenerate")
    return _accelerated(drawn, _jackknife(statistic, rows, min(rows, 200), rng), value, confidence)


def _draws(rows: int, resamples: int, rng: np.random.Generator) -> list[npt.NDArray[np.float64]]:
    step = max(1, _CHUNK // rows)
    blocks = []
    for start in range(0, resamples, step):
        count = min(step, resamples - start)
        picked = rng.integers(0, rows, size=(count, rows), dtype=np.int32)
        picked += (np.arange(count, dtype=np.int32) * rows)[:, None]
        blocks.append(np.bincount(picked.ravel(), minlength=count * rows).reshape(count, rows).astype(float))
    return blocks


def _jackknife(statistic: Statistic, rows: int, groups: int, rng: np.random.Generator) -> Floats:
    group = rng.permutation(rows) % groups
    step = max(1, 4 * _CHUNK // rows)
    values = [
        statistic((group != np.arange(start, min(start + step, groups))[:, None]).astype(np.float64))
        for start in range(0, groups, step)
    ]
    return np.concatenate(values)


def _normal(left_out: Floats, value: float, confidence: float) -> Interval:
    from scipy.special import stdtrit

    left_out = left_out[np.isfinite(left_out)]
    groups = len(left_out)
    if groups < 20:
        return Interval(None, None, "no interval: most groups have no value")
    error = float(np.sqrt((groups - 1) / groups * np.square(left_out - left_out.mean()).sum()))
    reach = float(stdtrit(groups - 1, (1 + confidence) / 2)) * error
    return Interval(value - reach, value + reach, "jackknife-t")


def _accelerated(drawn: Floats, left_out: Floats, value: float, confidence: float) -> Interval:
    from scipy.special import ndtr, ndtri

    below = (np.sum(drawn < value) + np.sum(drawn == value) / 2) / len(drawn)
    bias = float(ndtri(np.clip(below, 1 / len(drawn), 1 - 1 / len(drawn))))
    deviation = left_out[np.isfinite(left_out)]
    deviation = deviation.mean() - deviation
    scale = float(np.square(deviation).sum()) ** 1.5
    skew = float((deviation**3).sum()) / (6 * scale) if scale > 0 else 0.0
    tail = ndtri(np.array([(1 - confidence) / 2, (1 + confidence) / 2]))
    shifted = bias + (bias + tail) / (1 - skew * (bias + tail))
    low, high = np.quantile(drawn, ndtr(shifted))
    return Interval(float(low), float(high), "bootstrap-bca")
