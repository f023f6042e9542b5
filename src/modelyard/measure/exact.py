"""Intervals that assume no more than independent rows: a proportion, a quantile, paired proportions."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from modelyard.measure.edge import edge


def proportion(successes: int, rows: int, confidence: float = 0.95) -> tuple[float, float]:
    """Clopper and Pearson's exact interval (1934) of a proportion; (0, 1) without rows.

    >>> [round(end, 4) for end in proportion(0, 10)]
    [0.0, 0.3085]
    """
    from scipy.special import betaincinv

    if not 0 <= successes <= rows:
        raise ValueError(f"{successes} successes of {rows} rows")
    tail = (1 - confidence) / 2
    low = float(betaincinv(successes, rows - successes + 1, tail)) if successes else 0.0
    high = float(betaincinv(successes + 1, rows - successes, 1 - tail)) if successes < rows else 1.0
    return low, high


def order_statistics(
    ranked: npt.NDArray[np.float64], quantile: float, confidence: float = 0.95
) -> tuple[float | None, float | None]:
    """The exact interval of a quantile from sorted values, whatever their distribution.

    An end is `None` where so few values cannot bound it (David and Nagaraja 2003, section 7.1).

    >>> order_statistics(np.arange(1.0, 11.0), 0.5)
    (2.0, 9.0)
    """
    from scipy.special import bdtr

    rows = len(ranked)
    tail = (1 - confidence) / 2
    # P(the j smallest lie below the quantile) follows the binomial distribution.
    cumulative = bdtr(np.arange(rows, dtype=np.float64), rows, quantile) if rows else np.empty(0)
    below = int(np.searchsorted(cumulative, tail, side="right"))
    above = int(np.searchsorted(cumulative, 1 - tail, side="left")) + 1
    low = float(ranked[below - 1]) if below >= 1 else None
    high = float(ranked[above - 1]) if above <= rows else None
    return low, high


def paired_proportions(gained: int, lost: int, rows: int, confidence: float = 0.95) -> tuple[float, float]:
    """Tango's score interval (Statistics in Medicine 17, 1998) of a difference of paired proportions.

    Of `rows` pairs `gained` are right only in the second, `lost` only in the first; the difference is
    (gained - lost) / rows. It stays honest when no pair differs, where Wald's interval is a point.

    >>> [round(end, 4) for end in paired_proportions(0, 0, 100)]
    [-0.037, 0.037]
    """
    from scipy.special import ndtri

    if rows < 1 or gained < 0 or lost < 0 or gained + lost > rows:
        raise ValueError(f"{gained} gained and {lost} lost of {rows} rows")
    z = float(ndtri((1 + confidence) / 2))
    point = (gained - lost) / rows

    def beyond(delta: float) -> bool:
        return abs(_tango(gained, lost, rows, delta)) > z

    low, high = (edge(beyond, point, end, halvings=60)[0] for end in (-1.0, 1.0))
    return low, high


def _tango(gained: int, lost: int, rows: int, delta: float) -> float:
    """The score statistic of `p_gained - p_lost = delta`."""
    a = 2.0 * rows
    b = -gained - lost + (2 * rows - gained + lost) * delta
    c = -lost * delta * (1 - delta)
    q = max(0.0, (math.sqrt(max(0.0, b * b - 4 * a * c)) - b) / (2 * a))
    variance = rows * (2 * q + delta * (1 - delta))
    above = gained - lost - rows * delta
    if variance <= 0:
        return 0.0 if above == 0 else math.copysign(math.inf, above)
    return above / math.sqrt(variance)


def mcnemar(gained: int, lost: int) -> float:
    """The exact two-sided p-value of McNemar's test that gains and losses are equally likely.

    >>> round(mcnemar(1, 9), 5)
    0.02148
    """
    from scipy.special import bdtr

    discordant = gained + lost
    if discordant == 0:
        return 1.0
    return min(1.0, 2.0 * float(bdtr(float(min(gained, lost)), discordant, 0.5)))
