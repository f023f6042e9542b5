"""How a monitor is put to the proof: clean windows, and the same with a fault from the second on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from modelyard.measure.measurement import Verdict
from modelyard.monitor.rows import primary
from modelyard.monitor.window import judge_window
from modelyard.monitor.window_report import WindowReport
from modelyard.score.context import CheckContext

if TYPE_CHECKING:
    import pyarrow as pa

Judge: TypeAlias = Callable[["pa.Table", int], WindowReport]
"""A window and the number of the look, to its report."""

MOST_WINDOWS = 6


@dataclass(frozen=True, slots=True)
class Plant:
    """A fault: its name, the kind of alarm that must answer, and how a window of clean traffic gets it."""

    name: str
    kind: str
    apply: Callable[[pa.Table], pa.Table]
    subject: str = ""


def judge_of(context: CheckContext) -> Judge:
    """The very monitor that watches the endpoint, over the context's reference and requirements."""

    def judge(table: pa.Table, look: int) -> WindowReport:
        if context.reference is None or context.contract is None:
            raise ValueError("a drill needs reference and contract")
        return judge_window(
            table, context.feedback, context.reference, context.contract, context.requirements,
            context.options, endpoint=context.endpoint, look=look,
        )  # fmt: skip

    return judge


def prove(
    claim: str,
    context: CheckContext,
    plants: Sequence[Plant],
    judge: Judge | None = None,
    planted: Judge | None = None,
) -> Verdict:
    """Plants each fault into a copy of the live traffic; passes when each fires and clean traffic does not.

    The traffic is cut into windows of `min_rows`. The fault starts with the second window and must raise its
    alarm by the end of the window in which it starts: that is the stated delay, `min_rows` rows. `planted`
    judges the faulty stream where the fault lies outside the table.
    """
    judge = judge or judge_of(context)
    windows = _windows(context)
    need = 2 * context.options.min_rows
    if len(windows) < 2:
        why = f"not drilled: {need} rows of live traffic are needed"
        return Verdict(claim, False, why, details={"drill": True, "lacking": ["log"]})
    if not plants:
        why = "not drilled: the contract gives nothing to plant a fault in"
        return Verdict(claim, False, why, details={"drill": True, "lacking": ["plants"]})
    kinds = {plant.kind for plant in plants}
    false = [
        alarm.cause
        for look, window in enumerate(windows, 1)
        for alarm in judge(window, look).alarms
        if alarm.kind in kinds
    ]
    faults = {plant.name: _planted(plant, windows, planted or judge) for plant in plants}
    return _verdict(claim, context, windows, false, faults)


def _planted(plant: Plant, windows: Sequence[pa.Table], judge: Judge) -> dict[str, Any]:
    rows = 0
    for look, window in enumerate(windows[1:], 2):
        rows += window.num_rows
        for alarm in judge(plant.apply(window), look).alarms:
            if alarm.kind == plant.kind and plant.subject in ("", alarm.subject):
                return {"fired": True, "delay_rows": rows, "alarm": alarm.to_json()}
    return {"fired": False, "delay_rows": None, "alarm": None}


def _verdict(
    claim: str,
    context: CheckContext,
    windows: Sequence[pa.Table],
    false: list[str],
    faults: Mapping[str, dict[str, Any]],
) -> Verdict:
    limit = context.options.min_rows
    slept = [name for name, item in faults.items() if not item["fired"] or item["delay_rows"] > limit]
    clean_rows = sum(window.num_rows for window in windows)
    quiet = f"quiet over {clean_rows:,} clean rows" if not false else f"fired on clean traffic: {false[0]}"
    fired = ", ".join(
        f"{name} fired within {item['delay_rows']:,} rows" if item["fired"] else f"{name} did not fire"
        for name, item in faults.items()
    )
    details = {
        "drill": True,
        "stated_delay_rows": limit,
        "clean": {"rows": clean_rows, "windows": len(windows), "false_alarms": false},
        "faults": dict(faults),
    }
    return Verdict(claim, not slept and not false, f"{fired}; {quiet}", details=details)


def _windows(context: CheckContext) -> list[pa.Table]:
    if context.log is None:
        return []
    rows = primary(context.log)
    size = context.options.min_rows
    count = min(rows.num_rows // size, MOST_WINDOWS)
    return [rows.slice(index * size, size) for index in range(count)]
