"""One plan that was tried: what it costs, what it keeps, and how far it came."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from modelyard.compress.search.space import Choice
from modelyard.compress.soundness import CLAIM as SOUND
from modelyard.core.digest import Digest, finite
from modelyard.measure.measurement import Measurement, Verdict

State: TypeAlias = Literal["measured", "pruned", "failed"]
STATES: tuple[State, ...] = ("measured", "pruned", "failed")

OBJECTIVES: Mapping[str, Literal["higher", "lower"]] = {
    "quality": "higher",
    "speedup": "higher",
    "latency_p50": "lower",
    "latency_p99": "lower",
    "throughput": "higher",
    "model_size": "lower",
    "peak_memory": "lower",
}
"""What a search may weigh. "quality" is the project's metric, turned so that higher is better; "speedup" is
the paired ratio to the original, which a machine that slows down in between cannot bend."""


@dataclass(frozen=True, slots=True)
class Point:
    """A tried plan. `stage` is the last test it came to; `why` says what it ended with, in numbers.

    `measured` holds what is known of it by name (`quality`, `quality_difference`, `speedup`, ...), of a
    pruned one what was known by then. `accepted` is the gate's word. `model` finds its bytes in the store.
    """

    number: int
    choice: Choice
    state: State
    stage: str
    why: str
    accepted: bool
    seconds: float
    model: Digest | None = None
    measured: Mapping[str, Measurement] = field(default_factory=dict)
    verdicts: tuple[Verdict, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return self.choice.name

    @property
    def sound(self) -> bool:
        """Whether its answers may be used at all: finite, within bounds, each row's its own."""
        return all(item.passed for item in self.verdicts if item.claim == SOUND)

    def value(self, objective: str, better: str = "higher") -> float:
        """An objective turned so that higher is better; `better` is the direction of the quality metric."""
        found = self.measured[objective].value
        way = better if objective == "quality" else OBJECTIVES[objective]
        return found if way == "higher" else -found

    def to_json(self) -> dict[str, Any]:
        return {
            "number": self.number,
            "name": self.name,
            "choice": self.choice.to_json(),
            "state": self.state,
            "stage": self.stage,
            "why": self.why,
            "accepted": self.accepted,
            "seconds": finite(self.seconds),
            "model": self.model,
            "measured": {name: item.to_json() for name, item in self.measured.items()},
            "verdicts": [item.to_json() for item in self.verdicts],
            "notes": list(self.notes),
        }

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> Point:
        state = next(item for item in STATES if item == value["state"])
        return Point(
            int(value["number"]), Choice.from_json(value["choice"]), state, str(value["stage"]),
            str(value["why"]), bool(value["accepted"]), float(value["seconds"]), value["model"],
            {name: Measurement.from_json(item) for name, item in value["measured"].items()},
            tuple(Verdict.from_json(item) for item in value["verdicts"]), tuple(value["notes"]),
        )  # fmt: skip


def dominates(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    """Whether one is nowhere worse and somewhere better; higher is better.

    >>> dominates((1.0, 2.0), (1.0, 1.0)), dominates((1.0, 2.0), (2.0, 1.0))
    (True, False)
    """
    return all(a >= b for a, b in zip(one, other, strict=True)) and one != other


def front(points: list[Point], objectives: tuple[str, ...], better: str) -> list[Point]:
    """The measured, sound points that no other dominates, in their order: the Pareto front of the values."""
    rows = [
        (point, tuple(point.value(name, better) for name in objectives))
        for point in points
        if point.state == "measured" and point.sound and all(_known(point, name) for name in objectives)
    ]
    return [point for point, row in rows if not any(dominates(other, row) for _, other in rows)]


def _known(point: Point, name: str) -> bool:
    return name in point.measured and point.measured[name].value == point.measured[name].value
