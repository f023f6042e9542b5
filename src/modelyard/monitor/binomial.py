"""Exact tests of a rate against a limit."""

from __future__ import annotations

from modelyard.measure.measurement import Measurement


def above(hits: int, rows: int, limit: float) -> float:
    """The exact p-value of "the rate is at most `limit`" after `hits` in `rows` trials.

    >>> round(above(3, 10, 0.1), 3)
    0.07
    >>> above(0, 10, 0.0), above(1, 10, 0.0)
    (1.0, 0.0)
    """
    from scipy import stats

    return float(stats.binom.sf(hits - 1, rows, limit))


def rate(metric: str, hits: int, rows: int, *, confidence: float, of: str = "") -> Measurement:
    """A rate with its Clopper-Pearson interval (Clopper and Pearson, 1934).

    >>> rate("error_rate", 0, 100, confidence=0.95).high < 0.04
    True
    """
    from scipy import stats

    tail = (1.0 - confidence) / 2.0
    low = 0.0 if hits == 0 else float(stats.beta.ppf(tail, hits, rows - hits + 1))
    high = 1.0 if hits == rows else float(stats.beta.ppf(1.0 - tail, hits + 1, rows - hits))
    return Measurement(metric, hits / rows, low, high, "", rows, confidence, "clopper-pearson", of)
