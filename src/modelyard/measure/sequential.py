"""Tests that stay valid however often they are looked at, for canaries and monitors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from modelyard.measure.metric import Array


class Sequence(Protocol):
    """A quantity followed over time: `interval(alpha)` covers it at *every* look with 1 - alpha together."""

    def interval(self, alpha: float = 0.05) -> tuple[float, float]:
        """The confidence interval now."""
        ...


@dataclass(frozen=True, slots=True)
class ProportionSequence:
    """A proportion (an error rate) of a stream of zeros and ones."""

    successes: float = 0.0
    n: int = 0

    def update(self, values: Array) -> ProportionSequence:
        raise NotImplementedError

    def interval(self, alpha: float = 0.05) -> tuple[float, float]:
        raise NotImplementedError


@dataclass(frozen=True, slots=True, eq=False)
class ConfidenceSequence:
    """The mean of a stream of values that lie between `low` and `high`."""

    low: float = 0.0
    high: float = 1.0
    n: int = 0

    def update(self, values: Array) -> ConfidenceSequence:
        raise NotImplementedError

    def interval(self, alpha: float = 0.05) -> tuple[float, float]:
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class BernoulliComparison:
    """Candidate's minus reference's proportion, two independent arms of any sizes."""

    reference: ProportionSequence = ProportionSequence()
    candidate: ProportionSequence = ProportionSequence()

    def update(self, reference: Array | None = None, candidate: Array | None = None) -> BernoulliComparison:
        raise NotImplementedError

    def interval(self, alpha: float = 0.05) -> tuple[float, float]:
        raise NotImplementedError

    def p_value(self, margin: float = 0.0) -> float:
        """Anytime-valid p-value against "candidate <= reference + margin": small means truly worse."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True, eq=False)
class MeanComparison:
    """Candidate's minus reference's mean of bounded values, two independent arms of any sizes."""

    reference: ConfidenceSequence
    candidate: ConfidenceSequence

    @staticmethod
    def between(low: float, high: float) -> MeanComparison:
        """A comparison of values known to lie in [low, high]."""
        raise NotImplementedError

    def update(self, reference: Array | None = None, candidate: Array | None = None) -> MeanComparison:
        raise NotImplementedError

    def interval(self, alpha: float = 0.05) -> tuple[float, float]:
        raise NotImplementedError

    def p_value(self, margin: float = 0.0) -> float:
        raise NotImplementedError
