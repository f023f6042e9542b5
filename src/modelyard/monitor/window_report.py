"""What was found in one window of live traffic."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from modelyard.measure.measurement import Verdict
from modelyard.monitor.alarm import Alarm

WINDOW = "monitor.window"
"""The claim that a whole window could be judged and was quiet."""


@dataclass(frozen=True, slots=True)
class Unjudged:
    """A claim that this window cannot decide, and why: never a silent pass."""

    claim: str
    why: str

    def to_json(self) -> dict[str, str]:
        return {"claim": self.claim, "why": self.why}

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> Unjudged:
        return Unjudged(str(value["claim"]), str(value["why"]))


@dataclass(frozen=True, slots=True)
class WindowReport:
    """One window, judged.

    `rows` are the rows seen, `since` and `until` seconds since 1970 of the first and last row, `look` the
    number of this look and `alpha` what it spent of the false-alarm budget (0: nothing tested). `verdicts`
    holds every claim that was decided, `alarms` those that failed, `unjudged` those left open.
    """

    rows: int
    since: float
    until: float
    verdicts: tuple[Verdict, ...]
    alarms: tuple[Alarm, ...]
    unjudged: tuple[Unjudged, ...] = ()
    look: int = 1
    alpha: float = 0.0

    @property
    def judged(self) -> bool:
        """Whether there were rows enough to judge the inputs."""
        return all(item.claim != WINDOW for item in self.unjudged)

    @property
    def quiet(self) -> bool:
        """Whether the window was judged and nothing fired."""
        return self.judged and not self.alarms

    def to_verdict(self, claim: str = WINDOW) -> Verdict:
        """The window as one small verdict: passed when it was judged and no alarm fired."""
        if not self.judged:
            why = next(item.why for item in self.unjudged if item.claim == WINDOW)
        elif self.alarms:
            more = f" (and {len(self.alarms) - 1} more)" if len(self.alarms) > 1 else ""
            why = self.alarms[0].cause + more
        else:
            why = f"{len(self.verdicts)} checks over {self.rows} rows, none fired"
        measured = tuple(item for verdict in self.verdicts for item in verdict.measurements)
        details = {
            "rows": self.rows,
            "since": self.since,
            "until": self.until,
            "look": self.look,
            "alpha": self.alpha,
            "checks": len(self.verdicts),
            "alarms": [
                {"kind": item.kind, "subject": item.subject, "cause": item.cause, "action": item.action}
                for item in self.alarms
            ],
            "unjudged": [item.to_json() for item in self.unjudged],
        }
        return Verdict(claim, self.quiet, why, measured, None, details)

    def to_json(self) -> dict[str, Any]:
        return {
            "rows": self.rows,
            "since": self.since,
            "until": self.until,
            "look": self.look,
            "alpha": self.alpha,
            "verdicts": [item.to_json() for item in self.verdicts],
            "alarms": [item.to_json() for item in self.alarms],
            "unjudged": [item.to_json() for item in self.unjudged],
        }

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> WindowReport:
        return WindowReport(
            rows=int(value["rows"]),
            since=float(value["since"]),
            until=float(value["until"]),
            verdicts=tuple(Verdict.from_json(item) for item in value["verdicts"]),
            alarms=tuple(Alarm.from_json(item) for item in value["alarms"]),
            unjudged=tuple(Unjudged.from_json(item) for item in value["unjudged"]),
            look=int(value["look"]),
            alpha=float(value["alpha"]),
        )
