"""Tries passes and keeps the best model that the gate accepts, else the one given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from modelyard.compress.gate import Held, Judgement
from modelyard.core.progress import Progress, quiet
from modelyard.core.spec import Tensors
from modelyard.measure.metric import Array

if TYPE_CHECKING:
    from modelyard.model.model import Model
    from modelyard.model.runtime import Runtime


@dataclass(frozen=True, slots=True)
class Outcome:
    """The model to go on with, every judgement by candidate name, and which was kept ("float": none)."""

    model: Model
    judgements: tuple[tuple[str, Judgement], ...]
    kept: str
    notes: Mapping[str, tuple[str, ...]]
    """What each pass said it did, by candidate name."""


def compress(
    model: Model, passes: Sequence[str], calibration: Tensors, held: Held, *, metric: str, margin: float,
    goal: Literal["speed", "size"] = "speed", slices: Mapping[str, Array] | None = None,
    runtime: Runtime | None = None, seed: int = 0, budget: float = 6.0, batch: int = 1,
    progress: Progress = quiet,
) -> Outcome:  # fmt: skip
    """Applies each pass, judges what comes out against the original and keeps the best accepted one."""
    raise NotImplementedError
