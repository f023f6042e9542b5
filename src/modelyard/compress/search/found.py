"""What a search ends with: every point, the front, the choice and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from modelyard.compress.gate import Judgement
from modelyard.compress.search.point import Point
from modelyard.core.digest import JSON, finite
from modelyard.measure.requirement import Requirement
from modelyard.model.chosen_runtime import Settings

if TYPE_CHECKING:
    from modelyard.model.model import Model

VERSION = 1
"""Of `Found.to_json`. Raised when a field goes or changes its meaning."""


@dataclass(frozen=True, slots=True)
class Found:
    """A search's end. `model` is the chosen one, or the original when nothing was accepted.

    `chosen` is its point (`None`: the original is kept), `runtime` the engine that it was measured on,
    `front` the points that no other beats in every objective, whether or not one was accepted. `confirmed`
    are the second looks at the best, on fresh pairs, by number. `stopped` says which limit ended the search.
    """

    name: str
    model: Model
    baseline: Point
    points: tuple[Point, ...]
    front: tuple[Point, ...]
    chosen: Point | None
    runtime: str
    why: str
    stopped: str
    seconds: float
    size: int
    """How many plans the space holds."""
    metric: str
    goal: str
    objectives: tuple[str, ...]
    goals: tuple[Requirement, ...] = ()
    confirmed: Mapping[int, Judgement] = field(default_factory=dict)
    plan: str = "float"
    """The chosen plan as text, which `compress_as` takes."""
    settings: Settings = field(default_factory=dict)
    """The session options that made the chosen model surely faster still."""
    tuned: str = ""
    """What tuning the session options came to; empty where it was not done."""
    interrupted: bool = False
    """Stopped by the user: nothing was chosen yet, and the same call goes on."""

    def to_json(self) -> JSON:
        return finite(
            {
                "version": VERSION,
                "name": self.name,
                "metric": self.metric,
                "goal": self.goal,
                "objectives": list(self.objectives),
                "goals": [item.to_json() for item in self.goals],
                "chosen": None if self.chosen is None else self.chosen.number,
                "plan": "float" if self.chosen is None else self.chosen.name,
                "text": self.plan,
                "runtime": self.runtime,
                "runtime_options": dict(self.settings),
                "tuned": self.tuned,
                "interrupted": self.interrupted,
                "model": self.model.digest,
                "why": self.why,
                "stopped": self.stopped,
                "seconds": self.seconds,
                "space": self.size,
                "baseline": self.baseline.to_json(),
                "points": [point.to_json() for point in self.points],
                "front": [point.number for point in self.front],
                "confirmed": {
                    str(number): {
                        "accepted": item.accepted, "why": item.why, "speedup": item.speedup.to_json(),
                        "verdicts": [verdict.to_json() for verdict in item.verdicts],
                    }
                    for number, item in self.confirmed.items()
                },
            }
        )  # fmt: skip


def counted(points: tuple[Point, ...]) -> str:
    """How many plans ended where, in words."""
    measured = sum(point.state == "measured" for point in points)
    accepted = sum(point.accepted for point in points)
    early = sum(point.state == "pruned" for point in points)
    failed = sum(point.state == "failed" for point in points)
    parts = [f"{len(points)} plans tried", f"{measured} measured", f"{accepted} accepted"]
    parts += [f"{early} ended early"] if early else []
    parts += [f"{failed} did not apply"] if failed else []
    return ", ".join(parts)
