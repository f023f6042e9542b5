"""The loop's cache as a machine of its own: three tiny steps, a manual clock, a real store."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from modelyard.core.clock import ManualClock
from modelyard.core.errors import LedgerBroken, StoreBusy, StoreError
from modelyard.core.files import file_lock
from modelyard.lifecycle import loop, why
from modelyard.lifecycle.loop import Step, run_loop
from modelyard.lifecycle.project_file import read_project
from modelyard.lifecycle.step import Outcome, StepRecord, changes
from modelyard.measure.measurement import Verdict
from modelyard.store.store import Store, open_store


class Watcher:
    """Writes down what happened."""

    def __init__(self) -> None:
        self.ran: list[str] = []
        self.cached: list[str] = []
        self.reasons: dict[str, list[str]] = {}

    def started(self, step: Step, reasons: Sequence[str]) -> None:
        self.reasons[step.name] = list(reasons)

    def progress(self, step: Step, fraction: float, text: str) -> None: ...

    def finished(self, step: Step, record: StepRecord, cached: bool) -> None:
        (self.cached if cached else self.ran).append(step.name)


class World:
    """Three steps: each returns what `answers` says, raises it, or stops the loop."""

    def __init__(self, root: Path, store: Store) -> None:
        self.project = read_project(root)
        self.store = store
        self.clock = ManualClock()
        self.answers: dict[str, Any] = {"one": 1, "two": 1, "three": 1}
        self.stops = dict.fromkeys(self.answers, "")
        self.parts: dict[str, dict[str, str]] = {name: {} for name in self.answers}

    def run(self, until: str | None = None) -> Watcher:
        watcher = Watcher()
        run_loop(self.project, self.store, watcher, until=until, clock=self.clock)
        return watcher

    def step(self, name: str) -> Callable[..., Outcome]:
        def run(context: Any, progress: Any) -> Outcome:
            answer = self.answers[name]
            if isinstance(answer, BaseException):
                raise answer
            verdict = Verdict(f"claim.{name}", True, "as planned")
            return Outcome({"value": answer}, f"{name} done", (("project:p", verdict),), self.stops[name])

        return run


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    (tmp_path / "modelyard.toml").write_text(
        'version = 1\nname = "p"\ntask = "regression"\n[data]\nsource = "d.csv"\nlabel = "y"\n'
        '[train]\nmetric = "mae"\n[score]\nexpires = "10d"\n'
    )
    store = open_store(tmp_path / ".modelyard")
    made = World(tmp_path, store)
    steps = []
    for number, name in enumerate(made.answers):
        module = types.ModuleType(f"modelyard.lifecycle.steps.{name}")
        module.run = made.step(name)  # type: ignore[attr-defined]
        module.parts = lambda context, name=name: made.parts[name]  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, module.__name__, module)
        steps.append(Step(name, tuple(list(made.answers)[:number]), (), name))
    monkeypatch.setattr(loop, "STEPS", tuple(steps))
    monkeypatch.setattr(why, "STEPS", tuple(steps))
    monkeypatch.setattr(loop, "package_code", lambda module: {})
    yield made
    store.close()


def test_nothing_changed_is_cached_and_writes_nothing(world: World) -> None:
    assert world.run().ran == ["one", "two", "three"]
    entries = world.store.ledger.entries()
    again = world.run()
    assert (again.ran, again.cached) == ([], ["one", "two", "three"])
    assert world.store.ledger.entries() == entries
    assert all(row.cached for row in why.explain(world.project, world.store, clock=world.clock))


def test_a_changed_part_reruns_its_step_and_an_equal_result_stops_the_wave(world: World) -> None:
    world.run()
    world.parts["one"] = {"a file": "changed"}
    again = world.run()
    assert again.reasons == {"one": ["a file is new"]}
    assert (again.ran, again.cached) == (["one"], ["two", "three"])
    world.parts["one"] = {"a file": "changed again"}
    world.answers["one"] = 2
    again = world.run()
    assert again.reasons == {
        "one": ["a file changed"],
        "two": ["the result of one changed"],
        "three": ["the result of one changed"],
    }
    world.parts["one"] = {}
    assert world.run().reasons == {"one": ["a file is gone"]}


def test_until_stops_there_and_the_rest_waits(world: World) -> None:
    assert world.run(until="two").ran == ["one", "two"]
    found = {row.step: row.reasons for row in why.explain(world.project, world.store, clock=world.clock)}
    assert found == {"one": (), "two": (), "three": ("it has not run yet",)}
    assert world.run().ran == ["three"]


def test_evidence_expires_by_the_clock(world: World) -> None:
    world.run()
    world.clock.advance(9 * 86400.0)
    assert world.run().ran == []
    world.clock.advance(2 * 86400.0)
    again = world.run()
    assert again.ran == ["one", "two", "three"]
    assert again.reasons["one"] == ["its evidence has expired"]


def test_a_step_that_stops_ends_the_loop_and_is_tried_again(world: World) -> None:
    world.stops["two"] = "the gate: no"
    assert world.run().ran == ["one", "two"]
    again = world.run()
    assert again.reasons == {"two": ["it stopped the loop last time: the gate: no"]}
    world.stops["two"] = ""
    assert world.run().ran == ["two", "three"]


@pytest.mark.parametrize("raised", [StoreError("full"), KeyboardInterrupt(), ValueError("a defect")])
def test_a_step_that_raises_leaves_what_was_finished_and_nothing_of_itself(
    world: World, raised: BaseException
) -> None:
    world.answers["two"] = raised
    with pytest.raises(type(raised)):
        world.run()
    assert [entry.claim for entry in world.store.ledger.entries()] == ["claim.one"]
    world.answers["two"] = 1
    again = world.run()
    assert (again.cached, again.ran) == (["one"], ["two", "three"])
    assert world.store.ledger.verify() == 3


def test_a_stored_step_of_another_version_counts_as_absent(world: World) -> None:
    world.run()
    value = world.store.records.get_document("step", "p/two")
    assert isinstance(value, dict)
    world.store.records.put_document("step", "p/two", {**value, "version": 2})
    assert world.run().reasons == {"two": ["it has not run yet"]}
    for broken in ({}, [], "text", 3):
        world.store.records.put_document("step", "p/two", broken)  # type: ignore[arg-type]
        assert world.run().ran == ["two"]


def test_two_projects_of_one_store_do_not_mix(world: World, tmp_path: Path) -> None:
    world.run()
    text = (tmp_path / "modelyard.toml").read_text().replace('"p"', '"q"')
    (tmp_path / "modelyard.toml").write_text(text)
    world.project = read_project(tmp_path)
    assert world.run().ran == ["one", "two", "three"]


def test_only_one_loop_at_a_time_and_the_other_is_told_who(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def quick(path: Path, *, wait: float, what: str, holder: str) -> Any:
        return file_lock(path, wait=0.05, what=what, holder=holder)

    monkeypatch.setattr(loop, "file_lock", quick)
    lock = tmp_path / ".modelyard" / "run.lock"
    with (
        file_lock(lock, holder="'modelyard train' (process 42)"),
        pytest.raises(StoreBusy, match="process 42"),
    ):
        world.run()
    assert world.run().ran == ["one", "two", "three"]


def test_a_record_survives_its_own_json() -> None:
    record = StepRecord("train", {"a": "b"}, {"x": [1, 2.5, None]}, "done", 1.5, 2.0, "no", (3, 4))
    assert StepRecord.from_json(record.to_json()) == record
    assert changes(record, {"a": "b"}, now=3.0, expires=10.0) == ["it stopped the loop last time: no"]


def test_a_forged_ledger_is_named(world: World) -> None:
    """The loop's own entries hang together: cutting one out is found."""
    world.run()
    lines = list(world.store.ledger.export())
    from modelyard.store.entry import verify_export

    assert verify_export(lines) == 3
    with pytest.raises(LedgerBroken):
        verify_export([lines[0], lines[2]])
