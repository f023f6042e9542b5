"""Two models on the same rows: how far apart, and whether one is no worse than a margin."""

from __future__ import annotations

from modelyard.measure.measurement import Measurement, Verdict
from modelyard.measure.metric import Array


def difference(
    name: str, truth: Array, reference: Array, candidate: Array, *, confidence: float = 0.95, seed: int = 0,
    of: str = "",
) -> Measurement:  # fmt: skip
    """Candidate minus reference in the metric's unit, paired row by row."""
    raise NotImplementedError


def non_inferior(
    name: str, truth: Array, reference: Array, candidate: Array, margin: float, *, confidence: float = 0.95,
    seed: int = 0, of: str = "",
) -> Verdict:  # fmt: skip
    """Whether the candidate is at most `margin` (in the metric's unit, positive) worse; one-sided."""
    raise NotImplementedError
