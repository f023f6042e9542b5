"""The gate before serving: requirements, the champion, and the slow slide over the last releases."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from modelyard.measure.measurement import Measurement, Verdict
from modelyard.measure.requirement import Requirement

GATE = "infra.4"


def gate(
    required: Sequence[Requirement],
    verdicts: Sequence[Verdict],
    *,
    champion: Verdict | None,
    first: bool,
    quality: Measurement | None,
    history: Sequence[Measurement],
    slide_margin: float,
    better: Literal["higher", "lower"],
    last: int = 5,
) -> Verdict:
    """Whether a release may be served."""
    raise NotImplementedError
