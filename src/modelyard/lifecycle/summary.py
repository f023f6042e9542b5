"""What a run ends with: every requirement as asked and measured, the score, and where things are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from modelyard.lifecycle.project import Project
from modelyard.lifecycle.scoring import score_of
from modelyard.lifecycle.show import show_interval, show_value
from modelyard.lifecycle.step import StepRecord
from modelyard.measure.measurement import Verdict
from modelyard.score.score import Score
from modelyard.store.store import Store


@dataclass(frozen=True, slots=True)
class Asked:
    """One requirement's row: what was asked, what was measured (with interval), pass or fail."""

    metric: str
    asked: str
    measured: str
    interval: str
    passed: bool


@dataclass(frozen=True, slots=True)
class Summary:
    """The end of a run, for people and machines. `stopped` says why the loop did not reach its end."""

    project: str
    requirements: tuple[Asked, ...]
    score: Score
    release: str
    endpoint: str
    stopped: str

    def to_json(self) -> dict[str, Any]:
        return {
            "project": self.project,
            "requirements": [
                {key: getattr(item, key) for key in Asked.__slots__} for item in self.requirements
            ],
            "score": {"total": self.score.total, "band": self.score.band, **dict(self.score.sections)},
            "release": self.release,
            "endpoint": self.endpoint,
            "stopped": self.stopped,
        }


def summarise(project: Project, store: Store, done: Mapping[str, StepRecord]) -> Summary:
    """The summary of the steps that are done."""
    verdicts = [Verdict.from_json(item) for item in _values(done, "validate").get("requirements", [])]
    release = _values(done, "release")
    name = f"{release['name']} {release['version']} ({release['release']})" if release else ""
    return Summary(
        project=project.name,
        requirements=tuple(_asked(project, verdict) for verdict in verdicts),
        score=score_of(project, store),
        release=name,
        endpoint=project.endpoint_name if "serve" in done else "",
        stopped=next((record.stops for record in done.values() if record.stops), ""),
    )


def _values(done: Mapping[str, StepRecord], step: str) -> Mapping[str, Any]:
    return done[step].values if step in done else {}


def _asked(project: Project, verdict: Verdict) -> Asked:
    measured = verdict.measurements[0]
    required = next(item for item in project.requirements if item.claim == verdict.claim)
    sign = "at least" if required.direction == "at_least" else "at most"
    where = f" on {required.slice}" if required.slice else ""
    return Asked(
        metric=required.metric + where,
        asked=f"{sign} {show_value(required.bound, measured.unit)}",
        measured=show_value(measured.value, measured.unit),
        interval=show_interval(measured),
        passed=verdict.passed,
    )
