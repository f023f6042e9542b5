"""What a search found, as plain data, and the verdict on whether the hyper-parameters are tuned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from modelyard.measure.measurement import Verdict


@dataclass(frozen=True, slots=True)
class TrialRow:
    """One trial of a study. `value` is the metric on the validation part, `None` where there is none."""

    number: int
    state: Literal["complete", "pruned", "failed", "duplicate", "running"]
    value: float | None
    params: Mapping[str, Any]
    seconds: float
    error: str = ""
    same_as: int | None = None
    """For a duplicate: the trial whose answer was taken over instead of training again."""

    def to_json(self) -> dict[str, Any]:
        raise NotImplementedError

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> TrialRow:
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class Study:
    """A finished (or interrupted) search: the best parameters, every trial, and how far to trust it."""

    name: str
    metric: str
    better: Literal["higher", "lower"]
    best: Mapping[str, Any]
    best_value: float
    trials: tuple[TrialRow, ...]
    importance: Mapping[str, float] = field(default_factory=dict)
    """Share of the metric's variance that each hyper-parameter explains; empty with too few trials."""
    covered: Mapping[str, int] = field(default_factory=dict)
    """Distinct values tried of each hyper-parameter that the recipe asked for."""
    converged: bool = True
    """Whether the last third of the trials no longer brought a real improvement."""
    gain: float = 0.0
    """What the last third of the trials improved the best value by, in the metric's unit."""
    seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        raise NotImplementedError

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> Study:
        raise NotImplementedError


def tuning_verdict(study: Study) -> Verdict:
    """The verdict `model.3`: does the study cover every hyper-parameter that the recipe asks for?"""
    raise NotImplementedError
