"""Growing logs in, successive judged windows out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from modelyard.core.clock import SYSTEM_CLOCK, Clock
from modelyard.measure.requirement import Requirement
from modelyard.monitor.options import MonitorOptions
from modelyard.monitor.rows import micros, primary
from modelyard.monitor.window import judge_window
from modelyard.monitor.window_report import WindowReport

if TYPE_CHECKING:
    import pyarrow as pa

    from modelyard.data.contract import Contract
    from modelyard.data.profile import Profile

WATCH_VERSION = 1
"""Of the stored `WatchState`; raise it when a field changes its meaning, and keep reading the old ones."""

_DEFAULTS = MonitorOptions()


@dataclass(frozen=True, slots=True)
class WatchState:
    """Where a watch stands, so that another process can go on.

    `since` is the time (seconds since 1970) from which rows are still open, `feedback` that from which
    feedback is, `looks` how many windows have spent from the budget, `opened` when the open window began.
    """

    since: float = 0.0
    feedback: float = 0.0
    looks: int = 0
    opened: float | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            "version": WATCH_VERSION,
            "since": self.since,
            "feedback": self.feedback,
            "looks": self.looks,
            "opened": self.opened,
        }

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> WatchState:
        if value.get("version") != WATCH_VERSION:
            raise ValueError(f"a watch state of version {value.get('version')!r} cannot be read")
        opened = value["opened"]
        return WatchState(
            float(value["since"]),
            float(value["feedback"]),
            int(value["looks"]),
            None if opened is None else float(opened),
        )


class Watcher:
    """A machine that is fed the log as it grows and yields a report for each window that closes.

    It reads no file and starts no thread: whoever owns the log calls `feed` whenever there may be news, with
    at least the rows since `state.since`; older ones are looked up for feedback that comes late.
    """

    def __init__(
        self,
        reference: Profile,
        contract: Contract,
        requirements: Sequence[Requirement],
        options: MonitorOptions = _DEFAULTS,
        *,
        endpoint: str = "",
        released: float | None = None,
        clock: Clock = SYSTEM_CLOCK,
        state: WatchState = WatchState(),
    ) -> None:
        self._reference = reference
        self._contract = contract
        self._requirements = tuple(requirements)
        self._options = options
        self._endpoint = endpoint
        self._released = released
        self._clock = clock
        self.state = state

    def feed(self, table: pa.Table, feedback: pa.Table | None = None) -> list[WindowReport]:
        """The reports of the windows that closed by now, oldest first; `state` moves on with them.

        A window closes when it holds `window_rows` rows, or after `window_seconds`. One that holds fewer
        than `min_rows` by then is reported as too small, and its rows stay open for the next.
        """
        now = self._clock.now()
        rows = primary(table)
        times = micros(rows)
        order = np.argsort(times, kind="stable")
        rows, times = rows.take(order), times[order]
        horizon = _micros(now - self._options.settle)
        reports = []
        while (step := self._next(times, horizon, now)) is not None:
            until, closed = step
            window = rows.slice(*_range(times, _micros(self.state.since), until))
            report = self._judge(window, rows, self._fresh(feedback, horizon), now)
            reports.append(report)
            self.state = self._after(report, until if closed else None, horizon, now)
        return reports

    def _next(self, times: npt.NDArray[np.int64], horizon: int, now: float) -> tuple[int, bool] | None:
        """The end (exclusive) of the window that can be reported now and whether it closes."""
        if self.state.opened is None:
            first = times[times >= _micros(self.state.since)]
            opened = float(first[0]) / 1e6 if len(first) else now
            self.state = replace(self.state, opened=min(opened, now))
        start, count = _range(times, _micros(self.state.since), horizon)
        if count >= self._options.window_rows:
            return int(times[start + self._options.window_rows - 1]) + 1, True
        if self.state.opened is not None and now - self.state.opened >= self._options.window_seconds:
            return horizon, count >= self._options.min_rows
        return None

    def _fresh(self, feedback: pa.Table | None, horizon: int) -> pa.Table | None:
        if feedback is None or not feedback.num_rows:
            return None
        times = micros(feedback)
        return feedback.filter((times >= _micros(self.state.feedback)) & (times < horizon))

    def _judge(self, window: pa.Table, log: pa.Table, feedback: pa.Table | None, now: float) -> WindowReport:
        return judge_window(
            window, feedback, self._reference, self._contract, self._requirements, self._options,
            endpoint=self._endpoint, released=self._released, now=now, look=self.state.looks + 1, log=log,
        )  # fmt: skip

    def _after(self, report: WindowReport, until: int | None, horizon: int, now: float) -> WatchState:
        judged = any(verdict.claim.startswith("monitor.quality[") for verdict in report.verdicts)
        return WatchState(
            since=self.state.since if until is None else until / 1e6,
            feedback=horizon / 1e6 if judged else self.state.feedback,
            looks=self.state.looks + (report.alpha > 0),
            opened=now if until in (None, horizon) else until / 1e6,
        )


def _micros(seconds: float) -> int:
    return round(seconds * 1e6)


def _range(times: npt.NDArray[np.int64], since: int, until: int) -> tuple[int, int]:
    """Offset and length of the rows with `since <= time < until` in ordered times."""
    start, stop = np.searchsorted(times, [since, until])
    return int(start), max(int(stop - start), 0)
