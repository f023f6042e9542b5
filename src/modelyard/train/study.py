"""What a search found, as plain data, and the verdict on whether the hyper-parameters are tuned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from modelyard.core.digest import finite
from modelyard.measure.measurement import Verdict

FORMAT = 1
"""Raised when a reader of the old number would misread a study; fields that are added do not raise it."""

State = Literal["complete", "pruned", "failed", "interrupted", "running"]


@dataclass(frozen=True, slots=True)
class TrialRow:
    """One trial of a study. `value` is the metric on the validation part, `None` where there is none.

    `interrupted` trials were cut off with their process; they do not count and were made up for.
    """

    number: int
    state: State
    value: float | None
    params: Mapping[str, Any]
    seconds: float
    error: str = ""
    same_as: int | None = None
    """The earlier trial with the same parameters whose result was taken over instead of training again."""

    def to_json(self) -> dict[str, Any]:
        return {
            "number": self.number,
            "state": self.state,
            "value": finite(self.value),
            "params": finite(dict(self.params)),
            "seconds": self.seconds,
            "error": self.error,
            "same_as": self.same_as,
        }

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> TrialRow:
        return TrialRow(
            number=int(value["number"]),
            state=value["state"],
            value=None if value["value"] is None else float(value["value"]),
            params=dict(value["params"]),
            seconds=float(value["seconds"]),
            error=str(value["error"]),
            same_as=None if value["same_as"] is None else int(value["same_as"]),
        )


@dataclass(frozen=True, slots=True)
class Study:
    """A finished search: the best parameters, every trial, and how far to trust it."""

    name: str
    metric: str
    better: Literal["higher", "lower"]
    best: Mapping[str, Any]
    best_value: float
    trials: tuple[TrialRow, ...]
    importance: Mapping[str, float] = field(default_factory=dict)
    """Share of the metric's variance that each hyper-parameter explains; empty with too few trials."""
    covered: Mapping[str, int] = field(default_factory=dict)
    """Distinct values tried of each hyper-parameter that the recipe asked for and that had a choice."""
    converged: bool = False
    """Whether the last third of the trials brought at most a tenth of all that the search brought."""
    gain: float = 0.0
    """What the last third of the trials improved the best value by, in the metric's unit."""
    seconds: float = 0.0
    stopped: str = "trials"
    """What ended the search: `trials`, `budget`, or `nothing to tune`."""

    def count(self, state: State) -> int:
        """How many trials ended in this state."""
        return sum(trial.state == state for trial in self.trials)

    def to_json(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "name": self.name,
            "metric": self.metric,
            "better": self.better,
            "best": finite(dict(self.best)),
            "best_value": finite(self.best_value),
            "trials": [trial.to_json() for trial in self.trials],
            "importance": dict(self.importance),
            "covered": dict(self.covered),
            "converged": self.converged,
            "gain": self.gain,
            "seconds": self.seconds,
            "stopped": self.stopped,
        }

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> Study:
        if value["format"] != FORMAT:
            raise ValueError(f"a study of format {value['format']} cannot be read; known: {FORMAT}")
        return Study(
            name=str(value["name"]),
            metric=str(value["metric"]),
            better=value["better"],
            best=dict(value["best"]),
            best_value=float(value["best_value"]),
            trials=tuple(TrialRow.from_json(item) for item in value["trials"]),
            importance=dict(value["importance"]),
            covered=dict(value["covered"]),
            converged=bool(value["converged"]),
            gain=float(value["gain"]),
            seconds=float(value["seconds"]),
            stopped=str(value["stopped"]),
        )


def convergence(values: list[float], better: Literal["higher", "lower"]) -> tuple[bool, float]:
    """Whether a search has settled, and what its last third gained, from its values in order.

    All that it brought is the way from the median trial to the best. Fewer than six values settle nothing.

    >>> convergence([0.5, 0.7, 0.6, 0.9, 0.8, 0.9], "higher")
    (True, 0.0)
    """
    signed = [value if better == "higher" else -value for value in values]
    if len(signed) < 6:
        return False, 0.0
    cut = len(signed) - len(signed) // 3
    gain = max(0.0, max(signed) - max(signed[:cut]))
    middle = sorted(signed)[len(signed) // 2]
    return gain <= 0.1 * (max(signed) - middle), gain


def tuning_verdict(study: Study) -> Verdict:
    """The verdict `model.3`: has every hyper-parameter that the recipe asks for been tuned?

    Passes when each has been tried at two values or more and at least two trials were trained to their
    end. Whether the search has converged, and what each hyper-parameter matters, is in the details.
    """
    bare = [name for name, tried in study.covered.items() if tried < 2]
    complete = study.count("complete")
    if not study.covered:
        why = "nothing was tuned: the recipe asks its trial for no hyper-parameter"
    elif bare:
        why = f"tried at one value only: {', '.join(sorted(bare))}; give the search more trials"
    elif complete < 2:
        why = f"only {complete} trial was trained to its end; give the search more trials or time"
    else:
        state = "converged" if study.converged else "not converged yet"
        why = f"{len(study.covered)} hyper-parameters over {len(study.trials)} trials, {state}"
    return Verdict(
        "model.3",
        bool(study.covered) and not bare and complete >= 2,
        why,
        details={
            "study": study.name,
            "metric": study.metric,
            "best": dict(study.best),
            "best_value": study.best_value,
            "covered": dict(study.covered),
            "importance": dict(study.importance),
            "converged": study.converged,
            "gain_of_last_third": study.gain,
            "trials": {
                state: study.count(state) for state in ("complete", "pruned", "failed", "interrupted")
            },
            "duplicates": sum(trial.same_as is not None for trial in study.trials),
            "stopped": study.stopped,
        },
    )
