"""How far a window of data lies from its reference, on arrays and on histograms.

Values that are NaN are left out. Nothing to compare (an empty side) gives NaN and no p-value. Count vectors
of different lengths, negative or not finite raise `ValueError`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from modelyard.measure.metric import Array, Floats


@dataclass(frozen=True, slots=True)
class Distance:
    """A distance or test statistic; `p_value` is `None` where there is no test behind it."""

    name: str
    statistic: float
    p_value: float | None = None


def ks(reference: Array, window: Array) -> Distance:
    """Two-sample Kolmogorov-Smirnov test: the largest gap between the two distributions.

    The p-value is Stephens' approximation (1970), within a few per cent from 8 values a side on; it errs on
    the safe side where values tie.

    >>> ks(np.arange(100.0), np.arange(100.0) + 50).statistic
    0.5
    """
    first, second = _values(reference), _values(window)
    if not len(first) or not len(second):
        return Distance("ks", np.nan)
    points = np.concatenate([first, second])
    gap = np.searchsorted(first, points, side="right") / len(first)
    gap -= np.searchsorted(second, points, side="right") / len(second)
    return _kolmogorov(float(np.abs(gap).max()), len(first), len(second))


def ks_from_cdf(cdf: Callable[[Array], Array], n_reference: int, window: Array) -> Distance:
    """The same against a reference known by its cumulative distribution function and its number of values.

    `cdf` maps values [M] to P(X <= value) [M], as a profile's sketch does.

    >>> ks_from_cdf(lambda x: np.clip(x, 0, 1), 10**6, np.array([0.5, 0.5])).statistic
    0.5
    """
    found = _values(window)
    if not len(found) or n_reference < 1:
        return Distance("ks", np.nan)
    points, counts = np.unique(found, return_counts=True)
    after = np.cumsum(counts) / len(found)
    # Between two points the window stands still and the reference rises: the gap is largest at the ends.
    above = after - np.asarray(cdf(points), dtype=np.float64)
    below = np.asarray(cdf(np.nextafter(points, -np.inf)), dtype=np.float64) - np.append(0.0, after[:-1])
    return _kolmogorov(float(max(above.max(), below.max(), 0.0)), n_reference, len(found))


def ks_counts(reference: Array, window: Array) -> Distance:
    """The same on two histograms over the same edges: the gap at the edges, so at most that of the values."""
    p, q = _counts(reference, window)
    if not p.sum() or not q.sum():
        return Distance("ks", np.nan)
    gap = np.cumsum(p) / p.sum() - np.cumsum(q) / q.sum()
    return _kolmogorov(float(np.abs(gap).max()), round(p.sum()), round(q.sum()))


def psi(reference: Array, window: Array) -> Distance:
    """Population stability index of two count vectors over the same bins; an empty bin counts as half a row.

    The p-value uses that, without drift, the index over (1/n + 1/m) is chi-square distributed with one degree
    of freedom less than there are bins (Yurdakul and Naranjo 2020): the usual 0.1 and 0.25 ignore the sizes.

    >>> round(psi(np.array([50, 50]), np.array([60, 40])).statistic, 4)
    0.0405
    """
    p, q = _counts(reference, window)
    if not p.sum() or not q.sum():
        return Distance("psi", np.nan)
    used = p + q > 0
    n, m = p.sum(), q.sum()
    p, q = _filled(p[used]), _filled(q[used])
    index = float(np.sum((q - p) * np.log(q / p)))
    return Distance("psi", index, _chi2_tail(index / (1 / n + 1 / m), int(used.sum()) - 1))


def jensen_shannon(reference: Array, window: Array) -> Distance:
    """Jensen-Shannon distance (root of the divergence, base 2; 0 equal, 1 disjoint) of two count vectors.

    >>> jensen_shannon(np.array([1, 0]), np.array([0, 1])).statistic
    1.0
    """
    p, q = _counts(reference, window)
    if not p.sum() or not q.sum():
        return Distance("jensen_shannon", np.nan)
    p, q = p / p.sum(), q / q.sum()
    middle = (p + q) / 2
    divergence = (_relative(p, middle) + _relative(q, middle)) / 2
    return Distance("jensen_shannon", float(np.sqrt(max(0.0, divergence / np.log(2)))))


def kullback_leibler(reference: Array, window: Array) -> Distance:
    """Kullback-Leibler divergence of the window from the reference in nats, of two count vectors.

    A bin that the reference never saw counts there as half a row, so that the value stays finite.
    """
    p, q = _counts(reference, window)
    if not p.sum() or not q.sum():
        return Distance("kullback_leibler", np.nan)
    used = p + q > 0
    return Distance("kullback_leibler", max(0.0, _relative(q[used] / q.sum(), _filled(p[used]))))


def wasserstein(reference: Array, window: Array) -> Distance:
    """Wasserstein-1 (earth mover's) distance of two samples, in the values' unit; infinities are left out.

    >>> wasserstein(np.array([0.0, 1.0]), np.array([5.0, 6.0])).statistic
    5.0
    """
    first, second = _values(reference), _values(window)
    first, second = first[np.isfinite(first)], second[np.isfinite(second)]
    if not len(first) or not len(second):
        return Distance("wasserstein", np.nan)
    points = np.sort(np.concatenate([first, second]))
    gap = np.searchsorted(first, points[:-1], side="right") / len(first)
    gap -= np.searchsorted(second, points[:-1], side="right") / len(second)
    return Distance("wasserstein", float(np.sum(np.abs(gap) * np.diff(points))))


def wasserstein_counts(reference: Array, window: Array, edges: Array) -> Distance:
    """The same on two histograms [B] over the same finite, rising edges [B+1], each bin even."""
    p, q = _counts(reference, window)
    widths = np.diff(np.asarray(edges, dtype=np.float64))
    if len(widths) != len(p) or not np.isfinite(widths).all() or (widths < 0).any():
        raise ValueError(f"{len(p)} bins need {len(p) + 1} finite rising edges, got {len(edges)}")
    if not p.sum() or not q.sum():
        return Distance("wasserstein", np.nan)
    after = np.cumsum(p / p.sum() - q / q.sum())
    before = np.append(0.0, after[:-1])
    straight = (np.abs(before) + np.abs(after)) / 2
    # Where the gap changes its sign inside a bin, its absolute value is two triangles.
    reach = np.abs(before) + np.abs(after)
    crossed = np.divide(before**2 + after**2, 2 * reach, out=np.zeros_like(reach), where=reach > 0)
    return Distance("wasserstein", float(np.sum(widths * np.where(before * after < 0, crossed, straight))))


def chi_square(reference: Array, window: Array) -> Distance:
    """Pearson's chi-square test of homogeneity of two count vectors over the same categories.

    Categories expected fewer than 5 times in the smaller sample are counted together (Cochran's rule), so
    that the false-alarm rate holds with many rare ones.

    >>> round(chi_square(np.array([50, 50]), np.array([60, 40])).p_value, 4)
    0.1552
    """
    p, q = _counts(reference, window)
    if not p.sum() or not q.sum():
        return Distance("chi_square", np.nan)
    share = (p + q) / (p.sum() + q.sum())
    rare = share * min(p.sum(), q.sum()) < 5
    table = np.stack([np.append(side[~rare], side[rare].sum()) for side in (p, q)])
    table = table[:, table.sum(axis=0) > 0]
    if table.shape[1] < 2:
        return Distance("chi_square", 0.0, 1.0)
    expected = table.sum(axis=1, keepdims=True) * table.sum(axis=0) / table.sum()
    statistic = float(np.sum((table - expected) ** 2 / expected))
    return Distance("chi_square", statistic, _chi2_tail(statistic, table.shape[1] - 1))


def _values(values: Array) -> Floats:
    flat = np.asarray(values, dtype=np.float64).ravel()
    return np.sort(flat[~np.isnan(flat)])


def _counts(reference: Array, window: Array) -> tuple[Floats, Floats]:
    p, q = np.asarray(reference, dtype=np.float64), np.asarray(window, dtype=np.float64)
    if p.ndim != 1 or p.shape != q.shape:
        raise ValueError(f"two count vectors of one length, got {p.shape} and {q.shape}")
    for counts in (p, q):
        if not np.isfinite(counts).all() or (counts < 0).any():
            raise ValueError("counts are finite and not negative")
    return p, q


def _filled(counts: Floats) -> Floats:
    filled = np.where(counts > 0, counts, 0.5)
    return np.asarray(filled / filled.sum())


def _relative(p: Floats, q: Floats) -> float:
    seen = p > 0
    return float(np.sum(p[seen] * np.log(p[seen] / q[seen])))


def _kolmogorov(gap: float, n: int, m: int) -> Distance:
    from scipy.special import kolmogorov

    root = float(np.sqrt(n * m / (n + m)))
    return Distance("ks", gap, float(kolmogorov((root + 0.12 + 0.11 / root) * gap)))


def _chi2_tail(statistic: float, freedom: int) -> float:
    from scipy.special import chdtrc

    return float(chdtrc(freedom, statistic)) if freedom > 0 else 1.0
