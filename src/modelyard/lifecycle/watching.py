"""A watch over the endpoint: windows as they close, alarms into the ledger, live canaries judged."""

from __future__ import annotations

from dataclasses import replace

from modelyard.core.clock import SYSTEM_CLOCK, Clock
from modelyard.lifecycle.live_canary import judge_live
from modelyard.lifecycle.project import Project
from modelyard.lifecycle.steps.monitor import alarm_verdict
from modelyard.lifecycle.traffic import (
    WATCH,
    Traffic,
    judge,
    monitor_options,
    read_traffic,
    since_time,
    watch_key,
)
from modelyard.monitor.watch import Watcher, WatchState
from modelyard.monitor.window_report import WindowReport
from modelyard.store.store import Store

_LATE = 7 * 86400.0
"""Seconds that feedback may come after its prediction and still be counted."""


class Watch:
    """Reads the log, remembers in the store how far it got, and writes what it finds into the ledger."""

    def __init__(self, project: Project, store: Store, *, clock: Clock = SYSTEM_CLOCK) -> None:
        self._project = project
        self._store = store
        self._clock = clock

    def look(self, *, whole: bool) -> list[WindowReport]:
        """The windows that closed since the last look, or with `whole` everything since then as one window.

        A running canary is judged too, and promoted or rolled back as its evidence says.
        """
        judge_live(self._project, self._store, by="modelyard monitor", clock=self._clock)
        state = self._state()
        # Further back than the open window: feedback may be about predictions that were judged long ago.
        since = max(state.since - _LATE, 0.0) if state.since else None
        traffic = read_traffic(self._project, self._store, since=since)
        key = watch_key(self._project, traffic.release)
        if whole:
            return [self._judge(traffic, state, key)]
        watcher = Watcher(
            traffic.release.profile,
            traffic.release.contract,
            self._project.requirements,
            monitor_options(self._project),
            endpoint=self._project.endpoint_name,
            released=traffic.released,
            clock=self._clock,
            state=state,
        )
        reports = watcher.feed(traffic.log, traffic.feedback)
        for report in reports:
            self._keep(report)
        self._store.records.put_document(WATCH, key, watcher.state.to_json())
        return reports

    def _judge(self, traffic: Traffic, state: WatchState, key: str) -> WindowReport:
        """Everything since the last window that was judged; with nothing new, the run's own replay again."""
        fresh = since_time(traffic.log, state.since)
        # Each look at new rows spends its own share of the false-alarm budget, whoever asks for it.
        look = state.looks + 1 if fresh.num_rows else max(state.looks, 1)
        rows = fresh if fresh.num_rows else None
        report = judge(self._project, traffic, now=self._clock.now(), look=look, rows=rows)
        if fresh.num_rows:
            self._keep(report)
            self._store.records.put_document(WATCH, key, replace(state, looks=look).to_json())
        return report

    def _state(self) -> WatchState:
        traffic = read_traffic(self._project, self._store, since=self._clock.now())
        value = self._store.records.get_document(WATCH, watch_key(self._project, traffic.release))
        return WatchState.from_json(value) if isinstance(value, dict) else WatchState()

    def _keep(self, report: WindowReport) -> None:
        subject = f"endpoint:{self._project.endpoint_name}"
        self._store.ledger.append_verdict(subject, report.to_verdict(), by="modelyard monitor")
        for alarm in report.alarms:
            verdict = alarm_verdict(alarm.kind, alarm.verdict)
            self._store.ledger.append_verdict(subject, verdict, by="modelyard monitor")
