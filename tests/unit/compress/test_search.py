"""The search: limits before work, bad plans out early, nothing lost, a front in every case."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from modelyard.compress.pass_protocol import Compressed
from modelyard.compress.search import bench
from modelyard.compress.search.default_space import TEMPLATES, TRAINED, default_space, planned
from modelyard.compress.search.found import Found
from modelyard.compress.search.limits import Limits, hard_limits
from modelyard.compress.search.picture import picture
from modelyard.compress.search.point import Point, dominates, front
from modelyard.compress.search.search import search_plans
from modelyard.compress.search.space import Choice, Family, Options, Space, space_of
from modelyard.core.errors import CompressError, MissingExtra, ModelyardError
from modelyard.core.spec import Tensors
from modelyard.measure.measurement import Measurement
from modelyard.measure.requirement import Requirement
from modelyard.model.model import Model
from modelyard.model.reader import read_model
from modelyard.store.store import Store, open_store

Case: TypeAlias = Any
"""A model with rows, from conftest.py."""


@dataclass
class Shifted:
    """A pass whose model is as large and as fast, and loses quality with its option."""

    shift: float
    calls: list[float] | None = None
    name: str = "shift"

    def apply(self, model: Model, calibration: Tensors) -> Compressed:
        if self.calls is not None:
            self.calls.append(self.shift)
        proto = onnx.ModelProto.FromString(model.onnx)
        item = next(item for item in proto.graph.initializer if item.name == "bl")
        values = numpy_helper.to_array(item).copy()
        values[0] += self.shift
        item.CopyFrom(numpy_helper.from_array(values, "bl"))
        made = read_model(proto.SerializeToString(), task=model.task, labels=model.labels)
        return Compressed(made, (f"shifted by {self.shift}",))


def shifts(*values: float, calls: list[float] | None = None) -> Space:
    def make(options: Options) -> Shifted:
        return Shifted(float(options["shift"]), calls)

    return Space((Family("shift", make, {"shift": values}),))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = open_store(tmp_path / "store")
    yield opened
    opened.close()


@pytest.fixture(autouse=True)
def _no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process a plan only to see its memory would be most of these tests' time."""
    known = Measurement("peak_memory", 5e7, unit="bytes", n=1)
    monkeypatch.setattr(bench, "_memory", lambda model, runtime: known)


def run(case: Case, space: Space, store: Store, **options: Any) -> Found:
    given: dict[str, Any] = {"metric": "accuracy", "margin": 0.02, "seconds": 0.05, "budget": 60.0} | options
    return search_plans(
        case.model, space, case.calibration, case.held, records=store.records, objects=store.objects, **given
    )


def test_every_plan_is_tried_once_and_kept(tiny: Case, store: Store) -> None:
    calls: list[float] = []
    space = shifts(1e-6, 2e-6, 3e-6, calls=calls)
    found = run(tiny, space, store)
    assert sorted(calls) == [1e-6, 2e-6, 3e-6]
    assert found.stopped == "every plan of the space was tried"
    assert [point.number for point in found.points] == [0, 1, 2]
    assert all(store.objects.has(point.model) for point in found.points if point.model)
    again = run(tiny, space, store)
    assert len(calls) == 3
    assert [point.to_json() for point in again.points] == [point.to_json() for point in found.points]


def test_the_same_seed_asks_in_the_same_order(tiny: Case, tmp_path: Path) -> None:
    orders = []
    for folder in ("one", "two"):
        opened = open_store(tmp_path / folder)
        calls: list[float] = []
        run(tiny, shifts(*(step * 1e-6 for step in range(1, 9)), calls=calls), opened, trials=2)
        opened.close()
        orders.append(calls)
    assert orders[0] == orders[1]
    assert len(set(orders[0])) == 2


def test_limits_are_held_before_anything_is_trained_or_timed(tiny: Case, store: Store) -> None:
    trained: list[float] = []

    def make(options: Options) -> Shifted:
        return Shifted(1.0, trained)

    space = Space((Family("long", make, sketch=lambda options: Shifted(1e-6)),))
    found = run(tiny, space, store, limits=Limits(bytes=1000))
    assert trained == []
    assert found.points[0].stage == "limits"
    assert found.points[0].why.startswith("before any training: it has")
    assert "the limit is 1.00 kB" in found.points[0].why
    assert found.model is tiny.model
    assert found.front == (found.baseline,)


@pytest.mark.parametrize(
    ("limits", "match"),
    [
        (Limits(bytes=10), "the limit is 10 B"),
        (Limits(operators=frozenset({"Gemm", "Relu"})), "does not have Softmax"),
        (Limits(macs=100), "it multiplies 1,776 times a row, the limit is 100"),
        (Limits(bytes=1e9, macs=1e9, operators=frozenset({"Gemm", "Relu", "Softmax"})), ""),
    ],
)
def test_hard_limits_are_said_with_numbers(tiny: Case, limits: Limits, match: str) -> None:
    told = limits.broken(tiny.model)
    assert told == "" if not match else match in told


def test_requirements_on_size_become_limits() -> None:
    wanted = [Requirement("model_size", 3e5, "at_most"), Requirement("accuracy", 0.9, "at_least")]
    assert hard_limits(wanted).bytes == 3e5
    assert hard_limits([]).bytes is None


def test_a_hopeless_plan_is_never_timed(tiny: Case, store: Store) -> None:
    found = run(tiny, shifts(50.0), store)
    point = found.points[0]
    assert (point.state, point.stage) == ("pruned", "first rows")
    assert "accuracy is at least" in point.why
    assert "speedup" not in point.measured
    assert "no plan came to be measured" in found.why


def test_a_pass_that_fails_ends_its_plan_and_not_the_search(tiny: Case, store: Store) -> None:
    class Broken:
        name = "broken"

        def apply(self, model: Model, calibration: Tensors) -> Compressed:
            raise RuntimeError("a library fell over")

    broken = Family("broken", lambda options: Broken())
    found = run(tiny, Space((broken, *shifts(1e-6).families)), store)
    states = {point.choice.family: point for point in found.points}
    assert states["broken"].state == "failed"
    assert "RuntimeError: a library fell over" in states["broken"].why
    assert states["shift"].state == "measured"


def test_the_front_survives_when_no_point_meets_the_goal(tiny: Case, store: Store) -> None:
    goal = Requirement("latency_p50", 1e-12, "at_most")
    found = run(tiny, shifts(0.02, 0.3), store, goals=[goal])
    assert found.chosen is None
    assert found.model is tiny.model
    assert found.front
    assert json.loads(json.dumps(found.to_json()))["chosen"] is None


def test_plans_that_give_the_same_graph_are_measured_once(tiny: Case, store: Store) -> None:
    same = Family("other", lambda options: Shifted(1e-6))
    found = run(tiny, Space((*shifts(1e-6).families, same)), store)
    assert [point.state for point in found.points].count("measured") == 1
    assert "it gives the same graph as shift(shift=1e-06)" in found.points[1].why


@pytest.mark.serial
def test_a_gain_is_found_and_stands_a_second_look(wide: Case, store: Store) -> None:
    space = space_of(["graph", "int8-static"])
    told: list[tuple[float, str]] = []
    found = run(
        wide, space, store, seconds=0.8, progress=lambda fraction, text: told.append((fraction, text)),
        limits=Limits(bytes=2e6), goals=[Requirement("accuracy", 0.9, "at_least")],
    )  # fmt: skip
    assert found.chosen is not None and found.chosen.choice.family.startswith("int8-static")
    assert found.model.digest == found.chosen.model
    assert found.confirmed[found.chosen.number].accepted
    assert "surest gain in speed" in found.why
    known = {"quality", "quality_difference", "speedup", "latency_p50", "latency_p99", "throughput",
             "model_size", "peak_memory"}  # fmt: skip
    assert known == set(found.chosen.measured)
    assert found.chosen in found.front
    assert [fraction for fraction, _ in told] == sorted(fraction for fraction, _ in told)
    drawn = picture(found)
    assert drawn.startswith(b"<?xml") and b"int8-static" in drawn and b"original" in drawn
    assert drawn == picture(found)
    assert store.records.get_document("compress.search", found.name) is not None


def test_several_engines_are_searched_together(tiny: Case, store: Store) -> None:
    pytest.importorskip("openvino")
    found = run(tiny, space_of(["int8-static"], ("onnxruntime", "openvino")), store)
    names = {point.name for point in found.points}
    assert {"float@openvino", "int8-static@openvino", "int8-static"} <= names
    assert "float" not in names


def test_a_target_that_is_not_installed_names_the_extra(
    tiny: Case, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    from modelyard.model import openvino_runtime

    openvino_runtime._core.cache_clear()
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MissingExtra, match=r"modelyard\[openvino\]"):
        run(tiny, space_of(["graph"], ("onnxruntime", "openvino")), store)
    openvino_runtime._core.cache_clear()


def test_calibration_that_does_not_fit_is_a_failed_plan(tiny: Case, store: Store) -> None:
    bad = replace(tiny, calibration={"x": np.full((200, 64), np.nan, np.float32)})
    found = run(bad, space_of(["int8-static"]), store)
    assert {point.state for point in found.points} == {"failed"}
    assert "too few rows to calibrate with" in found.points[0].why
    assert found.model is tiny.model


@pytest.mark.parametrize(
    ("options", "match"),
    [({"objectives": ("sped",)}, "unknown objective"), ({"sampler": "tpee"}, "did you mean 'tpe'")],
)
def test_wrong_words_are_answered(tiny: Case, store: Store, options: dict[str, Any], match: str) -> None:
    with pytest.raises(ModelyardError, match=match):
        run(tiny, shifts(1e-6), store, **options)


@pytest.mark.parametrize("sampler", ["nsga2", "random"])
def test_other_samplers_work_too(tiny: Case, store: Store, sampler: str) -> None:
    found = run(
        tiny, shifts(*(step * 1e-6 for step in range(1, 30))), store, trials=2, sampler=sampler,
        objectives=("quality", "latency_p50", "peak_memory"),
    )  # fmt: skip
    assert len(found.points) == 2
    assert found.stopped == "2 plans were tried"


_CHILD = """
import importlib.util, sys, time
from pathlib import Path
from types import SimpleNamespace
import numpy as np
from modelyard.compress.gate import Held
from modelyard.compress.search import bench
from modelyard.measure.measurement import Measurement
from modelyard.model.reader import read_model
from modelyard.store.store import open_store

tests, folder, pause = Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3])
spec = importlib.util.spec_from_file_location("here", tests)
here = importlib.util.module_from_spec(spec)
sys.modules["here"] = here
spec.loader.exec_module(here)
bench._memory = lambda model, runtime: Measurement("peak_memory", 5e7, unit="bytes", n=1)
rows = np.load(folder / "rows.npz")
labels = tuple(str(digit) for digit in range(10))
model = read_model((folder / "model.onnx").read_bytes(), task="classification", labels=labels)
case = SimpleNamespace(
    model=model, calibration={"x": rows["calibration"]}, held=Held({"x": rows["x"]}, rows["targets"])
)
calls = []
space = here.shifts(*(step * 1e-6 for step in range(1, 6)), calls=calls)
def told(fraction, text):
    print(text, flush=True)
    time.sleep(pause)
found = here.run(case, space, open_store(folder / "store"), progress=told)
print("DONE", len(calls), [point.choice.options["shift"] for point in found.points], flush=True)
"""


def test_killed_at_any_moment_it_goes_on_where_it_was(tiny: Case, tmp_path: Path) -> None:
    script = tmp_path / "child.py"
    script.write_text(_CHILD)
    (tmp_path / "model.onnx").write_bytes(tiny.model.onnx)
    held = tiny.held
    np.savez(
        tmp_path / "rows.npz", calibration=tiny.calibration["x"], x=held.tensors["x"], targets=held.targets
    )
    arguments = [sys.executable, str(script), __file__, str(tmp_path)]
    with subprocess.Popen([*arguments, "0.01"], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        for line in child.stdout:
            if line.startswith("plan 3"):
                # In the middle of a plan, at a moment that nobody chose.
                time.sleep(0.05)
                os.kill(child.pid, signal.SIGKILL)
                break
    done = subprocess.run([*arguments, "0"], capture_output=True, text=True, check=True).stdout
    last = done.strip().splitlines()[-1]
    assert last.startswith("DONE ")
    calls, order = int(last.split()[1]), json.loads(last[last.index("[") :])
    assert sorted(order) == sorted(step * 1e-6 for step in range(1, 6))
    # What was finished before is not made again; what was interrupted is made first.
    assert calls == 3


def test_a_trial_that_died_before_its_end_is_closed_from_its_point(tiny: Case, store: Store) -> None:
    from modelyard.compress.search.journal import Journal

    class Died(BaseException):
        """What a test can catch and the search cannot."""

    def die(journal: Any, number: int, values: Any) -> None:
        raise Died

    calls: list[float] = []
    space = shifts(1e-6, 2e-6, calls=calls)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Journal, "_close", die)
        with pytest.raises(Died):
            run(tiny, space, store)
    found = run(tiny, space, store)
    assert sorted(calls) == [1e-6, 2e-6]
    assert len(found.points) == 2


def point(number: int, quality: float, speed: float, size: float, state: str = "measured") -> Point:
    found = {
        "quality": Measurement("accuracy", quality),
        "speedup": Measurement("speedup", speed),
        "model_size": Measurement("model_size", size),
    }
    return Point(number, Choice("p", {}), state, "full", "", False, 0.0, measured=found)  # type: ignore[arg-type]


def test_the_front_is_what_nothing_else_beats() -> None:
    points = [
        point(0, 0.9, 1.0, 100), point(1, 0.9, 2.0, 50), point(2, 0.95, 0.5, 200), point(3, 0.8, 1.9, 60),
        point(4, 0.99, 9.0, 1, state="pruned"),
    ]  # fmt: skip
    ahead = front(points, ("quality", "speedup", "model_size"), "higher")
    assert [item.number for item in ahead] == [1, 2]
    assert front(points[:2], ("quality",), "lower") == points[:2]
    assert not dominates((1.0,), (1.0,))


def test_points_are_kept_as_they_were() -> None:
    kept = point(3, float("nan"), 2.0, 5)
    assert Point.from_json(json.loads(json.dumps(kept.to_json()))).to_json() == kept.to_json()


def test_every_template_is_a_plan_with_all_its_values() -> None:
    from modelyard.compress.plan import parse

    for text, options in {**TEMPLATES, **TRAINED}.values():
        for choice in Space((Family("x", lambda options: Shifted(0), options),)).every():
            assert parse(text.format(**choice.options)).steps
    space = default_space()
    assert space.size == len(list(space.every()))
    assert {choice.family for choice in space.first()} == set(TEMPLATES)


def test_plans_given_as_text_are_the_space() -> None:
    space = default_space(["low-rank(0.9) > int8-static"])
    assert space.size == 1
    made = space.families[0].make({})
    assert made.name == "low-rank(energy=0.9) > int8-static"
    with pytest.raises(CompressError, match="no pass is called 'int9'"):
        default_space(["int9"])
    with pytest.raises(CompressError, match="nothing to train on"):
        default_space(["prune(0.5) > tune"])


def test_a_plan_that_trains_is_sketched_by_what_keeps_its_size() -> None:
    family = planned(
        "prune-units(sparsity={s}) > distil(epochs=2) > int8-static", "p", {"s": (0.5,)}, object()
    )  # type: ignore[arg-type]
    assert family.sketch is not None
    assert family.sketch({"s": 0.5}).name == "prune-units > int8-static"
    assert planned("separable > int8-static", "s", {}, object()).sketch is None  # type: ignore[arg-type]
    assert planned("int8-static", "i", {}).sketch is None
