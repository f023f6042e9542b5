"""Tests that stay valid however often they are looked at, for canaries and monitors.

`interval(alpha)` covers the truth at *all* looks together with probability 1 - alpha, so one may look after
every request and stop at any moment; `p_value()` may be compared with alpha likewise. States are frozen:
`update` gives the next one. Arms may have any sizes, chosen by chance or by what was seen so far, as long as
each new value is drawn independently of the past.

Latencies have no upper bound: follow the share of requests slower than a fixed limit (the champion's p99,
say) as a proportion instead.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from modelyard.measure.betting import CELLS, Wealth
from modelyard.measure.edge import edge
from modelyard.measure.metric import Array, Floats

_KEPT = 0.25


@dataclass(frozen=True, slots=True)
class ProportionSequence:
    """A proportion (an error rate) of a stream of zeros and ones; values between them are allowed too.

    The likelihood under a Beta(1/2, 1/2) mixture over the likelihood of each proportion is a test martingale
    (Robbins 1970); it needs no more memory than two counts and loses nothing on rare events.

    >>> found = ProportionSequence().update(np.repeat([0, 1], [990, 10]))
    >>> [round(end, 4) for end in found.interval(0.05)]
    [0.0024, 0.0262]
    """

    successes: float = 0.0
    n: int = 0

    @property
    def mean(self) -> float:
        """The observed proportion; NaN before the first value."""
        return self.successes / self.n if self.n else math.nan

    def update(self, values: Array) -> ProportionSequence:
        """The sequence after more values; `ValueError` when one is not between 0 and 1."""
        found = _bounded(values, 0.0, 1.0)
        return ProportionSequence(self.successes + float(found.sum()), self.n + len(found))

    def interval(self, alpha: float = 0.05) -> tuple[float, float]:
        """The confidence interval of the proportion, valid at every look."""
        limit = _limit(alpha)
        if not self.n:
            return 0.0, 1.0
        return (
            _edge(lambda p: self.evidence(p) >= limit, self.mean, 0.0),
            _edge(lambda p: self.evidence(p) >= limit, self.mean, 1.0),
        )

    def evidence(self, proportion: float) -> float:
        """Log evidence against a proportion: convex, and above log(1/a) with probability a at most, ever."""
        failures = self.n - self.successes
        mixture = _log_beta(self.successes + 0.5, failures + 0.5) - _log_beta(0.5, 0.5)
        return mixture - _times_log(self.successes, proportion) - _times_log(failures, 1 - proportion)


@dataclass(frozen=True, slots=True, eq=False)
class ConfidenceSequence:
    """The mean of a stream of values known to lie between `low` and `high`, by betting (`measure.betting`).

    Adapts to the variance, unlike Hoeffding's bound; ends are rounded outwards to a thousandth of the range.

    >>> found = ConfidenceSequence(0, 10).update(np.tile([4.0, 6.0], 500))
    >>> low, high = found.interval(0.05)
    >>> 4.8 < low < 5 < high < 5.2
    True
    """

    low: float = 0.0
    high: float = 1.0
    wealth: Wealth = field(default_factory=Wealth)

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise ValueError(f"bounds are finite and rise, got {self.low} and {self.high}")

    @property
    def n(self) -> int:
        """How many values were seen."""
        return self.wealth.n

    @property
    def mean(self) -> float:
        """The observed mean; NaN before the first value."""
        return self.low + (self.high - self.low) * self.wealth.total / self.n if self.n else math.nan

    def update(self, values: Array) -> ConfidenceSequence:
        """The sequence after more values in their order; `ValueError` when one is outside the bounds."""
        found = _bounded(values, self.low, self.high)
        scaled = (found - self.low) / (self.high - self.low)
        return ConfidenceSequence(self.low, self.high, self.wealth.after(scaled))

    def interval(self, alpha: float = 0.05) -> tuple[float, float]:
        """The confidence interval of the mean, valid at every look."""
        kept = np.flatnonzero(self.wealth.cells() < _limit(alpha))
        if not len(kept):
            # Every mean is refuted: the values are no independent draws with one mean.
            return self.mean, self.mean
        step = (self.high - self.low) / CELLS
        return self.low + step * float(kept[0]), self.low + step * float(kept[-1] + 1)


@dataclass(frozen=True, slots=True)
class BernoulliComparison:
    """Candidate's minus reference's proportion, from two independent arms of any sizes.

    The product of both arms' martingales is one for each pair of proportions; what remains unrefuted along
    each difference is its interval. Narrower than the difference of two intervals.

    >>> found = BernoulliComparison().update(np.repeat([0, 1], [980, 20]), np.repeat([0, 1], [180, 20]))
    >>> low, high = found.interval(0.05)
    >>> 0 < low < 0.08 < high, found.p_value() < 0.05
    (True, True)
    """

    reference: ProportionSequence = ProportionSequence()
    candidate: ProportionSequence = ProportionSequence()

    def update(self, reference: Array | None = None, candidate: Array | None = None) -> BernoulliComparison:
        """The comparison after more values of either arm; `ValueError` when one is not between 0 and 1."""
        return BernoulliComparison(
            self.reference if reference is None else self.reference.update(reference),
            self.candidate if candidate is None else self.candidate.update(candidate),
        )

    def interval(self, alpha: float = 0.05) -> tuple[float, float]:
        """The confidence interval of the difference, valid at every look; (-1, 1) while an arm is empty."""
        limit = _limit(alpha)
        if not self.reference.n or not self.candidate.n:
            return -1.0, 1.0
        seen = self.candidate.mean - self.reference.mean
        return (
            _edge(lambda delta: self.evidence(delta) >= limit, seen, -1.0),
            _edge(lambda delta: self.evidence(delta) >= limit, seen, 1.0),
        )

    def p_value(self, margin: float = 0.0) -> float:
        """Anytime-valid p-value against "candidate <= reference + margin": small means truly higher."""
        if not self.reference.n or not self.candidate.n:
            return 1.0
        if self.candidate.mean - self.reference.mean <= margin:
            return 1.0
        return math.exp(-max(0.0, self.evidence(margin)))

    def evidence(self, delta: float) -> float:
        """Log evidence against a difference: the least over all pairs of proportions that have it; convex."""
        low, high = max(0.0, -delta), min(1.0, 1.0 - delta)
        if low > high:
            return math.inf
        s0, s1 = self.reference.successes, self.candidate.successes
        f0, f1 = self.reference.n - s0, self.candidate.n - s1

        def slope(p: float) -> float:
            q = p + delta
            return _over(f0, 1 - p) - _over(s0, p) + _over(f1, 1 - q) - _over(s1, q)

        for _ in range(60):
            middle = (low + high) / 2
            if slope(middle) > 0:
                high = middle
            else:
                low = middle
        return min(
            self.reference.evidence(p) + self.candidate.evidence(min(1.0, max(0.0, p + delta)))
            for p in (low, high)
        )


@dataclass(frozen=True, slots=True, eq=False)
class MeanComparison:
    """Candidate's minus reference's mean of bounded values, from two independent arms of any sizes.

    As `BernoulliComparison`, with the betting martingales of `ConfidenceSequence`; the arms share bounds.
    """

    reference: ConfidenceSequence
    candidate: ConfidenceSequence

    def __post_init__(self) -> None:
        if (self.reference.low, self.reference.high) != (self.candidate.low, self.candidate.high):
            raise ValueError("both arms have the same bounds")

    @staticmethod
    def between(low: float, high: float) -> MeanComparison:
        """A comparison of values known to lie in [low, high].

        >>> MeanComparison.between(0, 2).interval()
        (-2.0, 2.0)
        """
        return MeanComparison(ConfidenceSequence(low, high), ConfidenceSequence(low, high))

    def update(self, reference: Array | None = None, candidate: Array | None = None) -> MeanComparison:
        """The comparison after more values of either arm; `ValueError` when one is outside the bounds."""
        return MeanComparison(
            self.reference if reference is None else self.reference.update(reference),
            self.candidate if candidate is None else self.candidate.update(candidate),
        )

    def interval(self, alpha: float = 0.05) -> tuple[float, float]:
        """The confidence interval of the difference, valid at every look."""
        limit, step = _limit(alpha), self._step
        first, second = self._evidence()
        mine = np.flatnonzero(first + second.min() < limit)
        theirs = np.flatnonzero(second + first.min() < limit)
        kept = np.nonzero(first[mine, None] + second[theirs] < limit)
        if not len(kept[0]):
            # Every pair of means is refuted: the values are no independent draws with one mean an arm.
            return self.candidate.mean - self.reference.mean, self.candidate.mean - self.reference.mean
        shift = theirs[kept[1]] - mine[kept[0]]
        low, high = float(shift.min() - 1), float(shift.max() + 1)
        return step * max(low, -CELLS), step * min(high, CELLS)

    def p_value(self, margin: float = 0.0) -> float:
        """Anytime-valid p-value against "candidate <= reference + margin": small means truly higher."""
        if not self.reference.n or not self.candidate.n:
            return 1.0
        first, second = self._evidence()
        # Cells i and j hold a pair of means with that difference when j <= i + reach.
        reach = math.floor(margin / self._step + 1e-9) + 1
        least = np.minimum.accumulate(second)
        last = np.arange(CELLS) + reach
        null = first[last >= 0] + least[np.minimum(last[last >= 0], CELLS - 1)]
        return min(1.0, math.exp(-float(null.min()))) if len(null) else 0.0

    @property
    def _step(self) -> float:
        return (self.reference.high - self.reference.low) / CELLS

    def _evidence(self) -> tuple[Floats, Floats]:
        """Log evidence against each arm's mean lying in each cell [CELLS]; it adds up."""
        return self.reference.wealth.cells(_KEPT), self.candidate.wealth.cells(_KEPT)


def _bounded(values: Array, low: float, high: float) -> Floats:
    found = np.asarray(values, dtype=np.float64).ravel()
    # Written so that NaN fails as well.
    if not ((found >= low) & (found <= high)).all():
        raise ValueError(f"values lie between {low:g} and {high:g}")
    return found


def _limit(alpha: float) -> float:
    if not 0 < alpha < 1:
        raise ValueError(f"alpha lies between 0 and 1, got {alpha}")
    return -math.log(alpha)


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)


def _times_log(count: float, p: float) -> float:
    if count == 0:
        return 0.0
    return count * math.log(p) if p > 0 else -math.inf


def _over(count: float, p: float) -> float:
    if count == 0:
        return 0.0
    return count / p if p > 0 else math.inf


def _edge(refuted: Callable[[float], bool], inside: float, outside: float) -> float:
    """Where, between the estimate and the end of the range, values begin to be refuted; rounded outwards."""
    return edge(refuted, inside, outside, halvings=50)[1]
