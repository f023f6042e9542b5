from __future__ import annotations

import json
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modelyard.core.clock import ManualClock
from modelyard.data.profile import Profile
from modelyard.measure.requirement import Requirement
from modelyard.monitor.options import MonitorOptions
from modelyard.monitor.watch import Watcher, WatchState

START = 1_000_000.0
OPTIONS = MonitorOptions(window_rows=300, window_seconds=600.0, settle=1.0)
NEEDS = [Requirement("accuracy", 0.9, "at_least")]


def watcher(world: Any, reference: Profile, clock: ManualClock, **more: Any) -> Watcher:
    return Watcher(reference, world.contract, NEEDS, more.pop("options", OPTIONS), clock=clock, **more)


def test_windows_close_by_rows_and_no_row_is_judged_twice(world: Any, reference: Profile) -> None:
    log = world.log(1000, 23, start=START)
    clock = ManualClock(START + 101.5)
    watch = watcher(world, reference, clock)
    reports = watch.feed(log)
    assert [report.rows for report in reports] == [300, 300, 300]
    assert [report.look for report in reports] == [1, 2, 3]
    assert watch.feed(log) == []
    clock.advance(600.0)
    assert [(report.rows, report.judged) for report in watch.feed(log)] == [(100, False)]
    assert watch.state.looks == 3


def test_a_slow_trickle_is_said_to_be_too_little_and_is_kept_for_the_next_window(
    world: Any, reference: Profile
) -> None:
    clock = ManualClock(START)
    watch = watcher(world, reference, clock)
    log = world.log(150, 23, start=START, step=1.0)
    clock.advance(601.0)
    (first,) = watch.feed(log)
    assert not first.judged and first.rows == 150
    assert watch.state.looks == 0
    more = pa.concat_tables([log, world.log(100, 24, start=START + 602.0, step=1.0)])
    clock.advance(601.0)
    (second,) = watch.feed(more)
    assert second.judged and second.rows == 250
    assert watch.state.looks == 1


def test_silence_is_reported_too(world: Any, reference: Profile) -> None:
    clock = ManualClock(START)
    watch = watcher(world, reference, clock)
    empty = world.log(0, 23)
    assert watch.feed(empty) == []
    clock.advance(600.0)
    (report,) = watch.feed(empty)
    assert report.rows == 0 and "too few rows" in report.to_verdict().why
    assert watch.feed(empty) == []


def test_rows_that_another_worker_may_still_write_before_are_left_open(
    world: Any, reference: Profile
) -> None:
    log = world.log(300, 23, start=START, step=0.1)
    clock = ManualClock(START + 30.0)
    watch = watcher(world, reference, clock)
    assert watch.feed(log) == []
    clock.advance(2.0)
    assert len(watch.feed(log)) == 1


def test_a_drift_in_the_middle_fires_in_its_window_only(world: Any, reference: Profile) -> None:
    clean = [world.log(300, 20 + seed, start=START + 30 * seed) for seed in range(4)]
    clean[2] = world.log(300, 22, start=START + 60, weight=4.0)
    watch = watcher(world, reference, ManualClock(START + 500))
    reports = watch.feed(pa.concat_tables(clean))
    assert [[alarm.subject for alarm in report.alarms] for report in reports] == [[], [], ["weight"], []]


def test_late_feedback_is_joined_to_old_predictions(world: Any, reference: Profile) -> None:
    log = world.log(300, 23, start=START)
    clock = ManualClock(START + 60)
    watch = watcher(world, reference, clock)
    assert watch.feed(log)[0].quiet
    later = world.log(300, 24, start=START + 100)
    late = world.feedback(log, 0.5, at=START + 100)
    clock.advance(100)
    (report,) = watch.feed(pa.concat_tables([log, later]), late)
    assert [alarm.kind for alarm in report.alarms] == ["quality"]
    clock.advance(100)
    again = world.log(300, 25, start=START + 200)
    (report,) = watch.feed(pa.concat_tables([log, later, again]), late)
    assert report.alarms == (), "feedback is judged once"


def test_a_settle_longer_than_a_window_still_ends(world: Any, reference: Profile) -> None:
    options = MonitorOptions(window_rows=300, window_seconds=1.0, settle=5.0)
    watch = watcher(world, reference, ManualClock(START + 1000), options=options)
    assert len(watch.feed(world.log(250, 23, start=START))) == 1


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.floats(1.0, 60.0), min_size=1, max_size=6))
def test_however_often_it_is_fed_and_resumed_the_windows_are_the_same(
    world: Any, reference: Profile, steps: list[float]
) -> None:
    log = world.log(700, 23, start=START)
    whole = watcher(world, reference, ManualClock(START + 400)).feed(log)
    clock = ManualClock(START)
    state, reports = WatchState(), []
    for step in [*steps, 400.0 - sum(steps)]:
        clock.advance(max(step, 0.0))
        watch = watcher(world, reference, clock, state=state)
        reports += watch.feed(log)
        state = WatchState.from_json(json.loads(json.dumps(watch.state.to_json())))
    assert [(report.rows, report.since, report.look) for report in reports] == [
        (report.rows, report.since, report.look) for report in whole
    ]


def test_a_state_of_another_version_is_refused() -> None:
    with pytest.raises(ValueError, match="version 9"):
        WatchState.from_json({**WatchState().to_json(), "version": 9})
