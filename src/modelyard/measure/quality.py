"""How good answers are, with an interval: exact where one exists, bootstrap elsewhere."""

from __future__ import annotations

from modelyard.measure.measurement import Measurement
from modelyard.measure.metric import Array


def quality(
    name: str, truth: Array, answer: Array, *, confidence: float = 0.95, seed: int = 0, of: str = ""
) -> Measurement:
    """A quality metric of answers against the truth."""
    raise NotImplementedError
