"""monitoring.4: models are not too stale."""

from __future__ import annotations

from dataclasses import dataclass

from modelyard.core.unit import show_seconds
from modelyard.measure.measurement import Verdict
from modelyard.monitor.window import judge_window
from modelyard.score.checks.missing_facts import lacking
from modelyard.score.context import CheckContext


@dataclass(frozen=True, slots=True)
class StalenessDrill:
    """Gives the release a date older than the limit; its real date must stay quiet."""

    id: str = "monitoring.4"

    def run(self, context: CheckContext) -> Verdict:
        claim = f"drill.{self.id}"
        missing = lacking(claim, context, "contract", "reference", "log", "released", "now")
        if missing is not None or context.released is None or context.now is None:
            return missing or Verdict(claim, False, "not drilled")
        limit = context.options.stale_after
        if limit is None:
            return Verdict(claim, False, "not drilled: no stale_after is stated", details={"drill": True})
        real = self._alarms(context, context.released, context.now)
        old = self._alarms(context, context.now - 1.5 * limit, context.now)
        fired = f"an age of {show_seconds(1.5 * limit)} {'fired at once' if old else 'did not fire'}"
        age = show_seconds(context.now - context.released)
        quiet = f"the real age of {age} {'fired' if real else 'stayed quiet'}; limit {show_seconds(limit)}"
        details = {
            "drill": True,
            "stated_delay_rows": 0,
            "clean": {"false_alarms": real},
            "faults": {"an old release": {"fired": bool(old), "delay_rows": 0, "alarm": old[:1]}},
        }
        return Verdict(claim, bool(old) and not real, f"{fired}; {quiet}", bound=limit, details=details)

    def _alarms(self, context: CheckContext, released: float, now: float) -> list[str]:
        if context.log is None or context.reference is None or context.contract is None:
            return []
        report = judge_window(
            context.log.slice(0, context.options.min_rows), None, context.reference, context.contract, (),
            context.options, endpoint=context.endpoint, released=released, now=now,
        )  # fmt: skip
        return [alarm.cause for alarm in report.alarms if alarm.kind == "staleness"]
