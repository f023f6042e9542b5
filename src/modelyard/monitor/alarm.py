"""What a monitor raises: which thing, what is wrong with it, and what to do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from modelyard.measure.measurement import Verdict

AlarmKind: TypeAlias = Literal[
    "drift", "prediction-drift", "breaches", "latency", "numerics", "staleness", "errors", "quality", "skew"
]


@dataclass(frozen=True, slots=True)
class Alarm:
    """A monitor that fired.

    `subject` is what it is about (a feature, `prediction`, a metric), `cause` one sentence with the numbers,
    `action` the command to run next, and `verdict` the failed verdict behind it.
    """

    kind: AlarmKind
    subject: str
    cause: str
    action: str
    verdict: Verdict

    def to_json(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "subject": self.subject,
            "cause": self.cause,
            "action": self.action,
            "verdict": self.verdict.to_json(),
        }

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> Alarm:
        return Alarm(
            kind=value["kind"],
            subject=str(value["subject"]),
            cause=str(value["cause"]),
            action=str(value["action"]),
            verdict=Verdict.from_json(value["verdict"]),
        )
