"""Runs, metrics and documents, on SQLite and PostgreSQL."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modelyard.core.clock import ManualClock
from modelyard.core.errors import StoreError
from modelyard.store.database import Database
from modelyard.store.packing import pack_steps, pack_values, unpack_steps, unpack_values
from modelyard.store.records import MetricPoint, Records, RunRow


@pytest.fixture
def records(database: Database) -> Records:
    return Records(database, ManualClock(0.0))


def test_a_run_from_start_to_end(database: Database) -> None:
    clock = ManualClock(0.0)
    records = Records(database, clock)
    run = records.start_run("digits", "train", {"lr": 0.1, "layers": [1, 2], "name": "ä\0"})
    records.log_metrics(run, {"loss": 1.0, "accuracy": 0.5}, step=1)
    clock.advance(2.0)
    records.log_metrics(run, {"loss": 0.5}, step=2)
    records.finish_run(run, "failed")
    row = records.run(run)
    assert row == RunRow(
        run,
        "digits",
        "train",
        "failed",
        "1970-01-01T00:00:00.000000Z",
        "1970-01-01T00:00:02.000000Z",
        {"lr": 0.1, "layers": [1, 2], "name": "ä\0"},
        {"accuracy": 0.5, "loss": 0.5},
    )
    assert records.runs() == [row]
    assert records.history(run, "loss") == [
        MetricPoint(1, "1970-01-01T00:00:00.000000Z", 1.0),
        MetricPoint(2, "1970-01-01T00:00:02.000000Z", 0.5),
    ]
    assert [point.step for point in records.history(run, "accuracy")] == [1]
    assert records.history(run, "other") == []


def test_a_new_run_is_running_and_has_no_metrics(records: Records) -> None:
    row = records.run(records.start_run("p", "train"))
    assert (row.status, row.ended, row.params, row.metrics) == ("running", None, {}, {})


def test_runs_are_listed_newest_first_and_filtered(records: Records) -> None:
    made = [records.start_run(f"p{i % 2}", "search" if i < 3 else "fit") for i in range(6)]
    for run in made:
        records.log_metrics(run, {f"only-{run}": 1.0})
    assert [row.run for row in records.runs()] == made[::-1]
    assert [row.run for row in records.runs("p0")] == [made[4], made[2], made[0]]
    assert [row.run for row in records.runs("p0", "search")] == [made[2], made[0]]
    assert [row.run for row in records.runs(kind="fit", limit=2)] == [made[5], made[4]]
    assert records.runs(limit=1)[0].metrics == {f"only-{made[5]}": 1.0}
    assert records.runs("nobody") == []
    assert records.runs(limit=0) == []


def test_a_late_smaller_step_is_history_but_not_the_latest(records: Records) -> None:
    run = records.start_run("p", "train")
    records.log_metrics(run, {"a": 5.0}, step=5)
    records.log_metrics(run, {"a": 3.0, "b": 3.0}, step=3)
    records.log_metrics(run, {"a": 5.5}, step=5)
    assert records.run(run).metrics == {"a": 5.5, "b": 3.0}
    assert [(p.step, p.value) for p in records.history(run, "a")] == [(5, 5.0), (3, 3.0), (5, 5.5)]


def test_metrics_that_are_not_finite_come_back_as_they_were(records: Records) -> None:
    run = records.start_run("p", "train")
    given = {"nan": math.nan, "inf": math.inf, "minus": -math.inf, "zero": -0.0, "tiny": 5e-324}
    records.log_metrics(run, given, step=2**40)
    found = records.run(run).metrics
    assert math.isnan(found.pop("nan"))
    assert {name: str(value) for name, value in found.items()} == {
        "inf": "inf",
        "minus": "-inf",
        "zero": "-0.0",
        "tiny": "5e-324",
    }
    assert records.history(run, "inf")[0].step == 2**40


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    calls=st.lists(
        st.tuples(
            st.integers(-3, 3),
            st.dictionaries(
                st.sampled_from(["a", "b", "loss/é", "c"]), st.floats(allow_nan=False), max_size=4
            ),
        ),
        max_size=6,
    )
)
def test_the_latest_metrics_are_what_the_history_says(
    records: Records, calls: list[tuple[int, dict[str, float]]]
) -> None:
    run = records.start_run("p", "train")
    for step, metrics in calls:
        records.log_metrics(run, metrics, step=step)
    expected: dict[str, float] = {}
    for name in {name for _, metrics in calls for name in metrics}:
        points = [(step, metrics[name]) for step, metrics in calls if name in metrics]
        assert [(p.step, p.value) for p in records.history(run, name)] == points
        highest = max(step for step, _ in points)
        expected[name] = [value for step, value in points if step == highest][-1]
    assert records.run(run).metrics == expected


@given(st.lists(st.floats()), st.lists(st.integers(-(2**63), 2**63 - 1)))
def test_packing_loses_nothing(values: list[float], steps: list[int]) -> None:
    assert pack_values(unpack_values(pack_values(values))) == pack_values(values)
    assert unpack_steps(pack_steps(steps), len(steps)) == tuple(steps)


def test_runs_that_are_not_there(records: Records) -> None:
    for call in (
        lambda: records.log_metrics("nope", {"a": 1.0}),
        lambda: records.finish_run("nope"),
        lambda: records.run("nope"),
    ):
        with pytest.raises(StoreError, match="no such run: got 'nope'"):
            call()


@pytest.mark.parametrize("bad", [{"a": "fast"}, {"a": None}])
def test_a_metric_that_is_no_number_leaves_nothing(records: Records, bad: dict[str, Any]) -> None:
    run = records.start_run("p", "train")
    with pytest.raises((TypeError, ValueError)):
        records.log_metrics(run, {"fine": 1.0, **bad})
    assert records.run(run).metrics == {}


def test_documents(records: Records) -> None:
    value = {"z": 1, "a": [None, True, 1.5, "Zoë", "\0"], "m": {}}
    records.put_document("step", "b", value)
    records.put_document("step", "B", 1)
    records.put_document("step", "ä", [])
    records.put_document("other", "b", "text")
    found = records.get_document("step", "b")
    assert found == value
    assert isinstance(found, dict)
    assert list(found) == ["z", "a", "m"]
    records.put_document("step", "b", None)
    assert records.documents("step") == [("B", 1), ("b", None), ("ä", [])]
    records.delete_document("step", "b")
    records.delete_document("step", "b")
    assert records.get_document("step", "b") is None
    assert records.get_document("other", "b") == "text"
    assert records.documents("none") == []


def test_what_is_not_json_is_refused_before_anything_is_written(records: Records) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        records.put_document("k", "x", math.nan)
    with pytest.raises(TypeError):
        records.start_run("p", "train", {"a": object()})  # type: ignore[dict-item]
    assert records.documents("k") == []
    assert records.runs() == []


def test_threads_and_other_openings_share_one_database(
    records: Records, make_database: Callable[..., Database]
) -> None:
    run = records.start_run("p", "train")
    other = Records(make_database())

    def log(target: Records, name: str) -> None:
        for step in range(5):
            target.log_metrics(run, {name: float(step)}, step=step)

    threads = [
        threading.Thread(target=log, args=(target, f"m{i}"))
        for i, target in enumerate([records, other, records, other])
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert records.run(run).metrics == {f"m{i}": 4.0 for i in range(4)}
    assert len(other.history(run, "m3")) == 5


def test_a_forked_child_has_connections_of_its_own(records: Records) -> None:
    records.put_document("k", "parent", 1)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            records.put_document("k", "child", records.get_document("k", "parent"))
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    assert records.documents("k") == [("child", 1), ("parent", 1)]


def test_an_optuna_study_lives_in_the_same_database(records: Records) -> None:
    import warnings

    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    run = records.start_run("p", "search")
    for expected in (3, 6):
        with warnings.catch_warnings():
            # Optuna calls SQLAlchemy in ways that SQLAlchemy has come to warn of.
            warnings.simplefilter("ignore")
            storage = optuna.storages.RDBStorage(records.url)
            study = optuna.create_study(
                study_name="s",
                storage=storage,
                load_if_exists=True,
                sampler=optuna.samplers.RandomSampler(seed=0),
            )
            study.optimize(lambda trial: trial.suggest_float("x", -1, 1) ** 2, n_trials=3)
        assert len(study.trials) == expected
        best = study.best_value
        records.log_metrics(run, {"best": best}, step=expected)
        storage.remove_session()
        storage.engine.dispose()
    assert records.run(run).metrics == {"best": best}
    records.put_document("k", "after", 1)
