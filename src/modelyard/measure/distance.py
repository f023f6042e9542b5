"""How far a window of data lies from its reference, on arrays and on histograms."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from modelyard.measure.metric import Array


@dataclass(frozen=True, slots=True)
class Distance:
    """A distance or test statistic; `p_value` is `None` where there is no test behind it."""

    name: str
    statistic: float
    p_value: float | None = None


def ks(reference: Array, window: Array) -> Distance:
    """Two-sample Kolmogorov-Smirnov test on values; NaN are left out."""
    raise NotImplementedError


def ks_from_cdf(cdf: Callable[[Array], Array], n_reference: int, window: Array) -> Distance:
    """The same against a reference known by its cumulative distribution (a profile's sketch) and size."""
    raise NotImplementedError


def ks_counts(reference: Array, window: Array) -> Distance:
    """The same on two histograms over the same edges; conservative."""
    raise NotImplementedError


def psi(reference: Array, window: Array) -> Distance:
    """Population stability index of two count vectors over the same bins."""
    raise NotImplementedError


def jensen_shannon(reference: Array, window: Array) -> Distance:
    """Jensen-Shannon distance (square root of the divergence, base 2; 0 to 1) of two count vectors."""
    raise NotImplementedError


def kullback_leibler(reference: Array, window: Array) -> Distance:
    """Kullback-Leibler divergence of the window from the reference in nats, of two count vectors."""
    raise NotImplementedError


def wasserstein(reference: Array, window: Array) -> Distance:
    """Wasserstein-1 (earth mover's) distance of two samples, in the values' unit."""
    raise NotImplementedError


def wasserstein_counts(reference: Array, window: Array, edges: Array) -> Distance:
    """The same on two histograms over the same edges [B+1]."""
    raise NotImplementedError


def chi_square(reference: Array, window: Array) -> Distance:
    """Chi-square test of homogeneity of two count vectors over the same categories."""
    raise NotImplementedError
