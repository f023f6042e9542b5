"""The gate: a candidate is accepted only on paired evidence of speed (or size), quality and sound answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from modelyard.core.spec import Tensors
from modelyard.measure.measurement import Measurement, Verdict
from modelyard.measure.metric import Array

if TYPE_CHECKING:
    from modelyard.model.model import Model
    from modelyard.model.runtime import Runtime


@dataclass(frozen=True, slots=True)
class Held:
    """Held-out rows: the model's inputs and their targets."""

    tensors: Tensors
    targets: Array


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the gate found. `why` is one sentence with numbers; `size_ratio` is original over candidate."""

    accepted: bool
    verdicts: tuple[Verdict, ...]
    why: str
    speedup: Measurement
    size_ratio: float


def judge(
    original: Model, candidate: Model, data: Held, *, metric: str, margin: float,
    goal: Literal["speed", "size"] = "speed", slices: Mapping[str, Array] | None = None,
    runtime: Runtime | None = None, seed: int = 0, budget: float = 2.0, batch: int = 1,
) -> Judgement:  # fmt: skip
    """Judges a candidate against its original; never raises for a bad candidate, it refuses it."""
    raise NotImplementedError
