"""Where a plan is put to the test, step by step, the cheapest first, so that bad plans end early."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from modelyard.compress.gate import Goal, Held, Judgement, judge
from modelyard.compress.search.limits import Limits
from modelyard.compress.search.memory_probe import PROBE, payload
from modelyard.compress.search.point import Point
from modelyard.compress.search.space import HOME, Choice, Space
from modelyard.core.clock import SYSTEM_CLOCK, Clock
from modelyard.core.errors import ModelyardError
from modelyard.core.spec import Tensors
from modelyard.measure.compare import difference
from modelyard.measure.cost import latency, peak_memory, size, speedup, throughput
from modelyard.measure.measurement import Measurement
from modelyard.measure.metric import Array
from modelyard.measure.metric import metric as metric_named
from modelyard.measure.quality import quality
from modelyard.model.chosen_runtime import ChosenRuntime
from modelyard.model.predict import predict
from modelyard.model.reader import read_model
from modelyard.model.runtimes import RUNTIMES

if TYPE_CHECKING:
    from modelyard.compress.pass_protocol import Compressed
    from modelyard.model.model import Model
    from modelyard.model.runtime import Session

_FIRST_ROWS = 200
_HOPELESS = 5.0
"""A plan is not timed when it is sure to lose more than so many margins: nobody would choose it."""
_GLANCE = 0.15
_BATCH = 32


@dataclass(frozen=True, slots=True)
class Bar:
    """What a plan is held against: the metric and its margin, the goal, the slices, the hard limits."""

    metric: str
    margin: float
    goal: Goal = "speed"
    slices: Mapping[str, Array] = field(default_factory=dict)
    limits: Limits = field(default_factory=Limits)
    mixing: bool = False
    batch: int = 1
    seconds: float = 1.5
    """Of timing in pairs, a plan."""


class Bench:
    """The original, loaded and ready, and the rows that candidates are compared on.

    Raises `MissingExtra` when an engine of the space is not installed, before anything is tried.
    """

    def __init__(
        self, original: Model, calibration: Tensors, held: Held, space: Space, bar: Bar, seed: int,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:  # fmt: skip
        self._original, self._calibration, self._held = original, calibration, held
        self._space, self._bar, self._seed, self._clock = space, bar, seed, clock
        self._engines = {name: RUNTIMES.get(name) for name in {HOME, *space.runtimes}}
        self._home = self._engines[HOME].load(original)
        for name in space.runtimes:
            if name != HOME:
                self._probe(name)
        self._one = {name: values[: bar.batch] for name, values in held.tensors.items()}
        self._before = predict(self._home, held.tensors)

    def _probe(self, name: str) -> None:
        """An engine that is missing ends the search; one that cannot take the original may take others."""
        from modelyard.core.errors import ModelError

        try:
            self._engines[name].load(self._original).close()
        except ModelError:
            return

    def close(self) -> None:
        """Gives the original's session back."""
        self._home.close()

    def baseline(self) -> Point:
        """The original as a point: what everything is compared with."""
        began = self._clock.monotonic()
        same = Measurement("speedup", 1.0, 1.0, 1.0, "x", 1, 0.95, "the original itself")
        measured = {"speedup": same, **self._costs(self._home, self._original, HOME)}
        measured |= self._qualities(self._before)
        return Point(
            -1, Choice("float", {}), "measured", "full", "the original", True,
            self._clock.monotonic() - began, self._original.digest, measured,
        )  # fmt: skip

    def point(
        self, number: int, choice: Choice, rivals: list[Point], tried: list[Point] | None = None
    ) -> tuple[Point, Model | None]:
        """The plan as far as it comes; `rivals` are the front so far, `tried` all points before.

        A pass that raises, and a plan that gives a graph which was tried before, are points that say so.
        """
        began = self._clock.monotonic()
        made: Compressed | None = None
        try:
            start = Point(number, choice, "pruned", "limits", "", False, 0.0)
            found, made = self._tried(start, rivals, tried or [])
        except Exception as error:  # Whatever a plan raises ends this plan, not the search.
            lines = str(error).strip().splitlines() or [""]
            told = (
                str(error)
                if isinstance(error, ModelyardError)
                else f"{type(error).__name__}: {lines[0][:200]}"
            )
            found = Point(number, choice, "failed", "apply", told, False, 0.0)
        model = None if made is None else made.model
        return replace(found, seconds=self._clock.monotonic() - began), model

    def _tried(
        self, start: Point, rivals: list[Point], tried: list[Point]
    ) -> tuple[Point, Compressed | None]:
        choice = start.choice
        family, limits = self._space.family(choice.family), self._bar.limits
        if family.sketch is not None:
            sketch = family.sketch(choice.options).apply(self._original, self._calibration)
            broken = limits.broken(sketch.model)
            if broken:
                return replace(start, why=f"before any training: {broken}"), None
        made = family.make(choice.options).apply(self._original, self._calibration)
        model = made.model
        start = replace(
            start, notes=made.notes, model=model.digest, measured={"model_size": size(model.onnx)}
        )
        broken = limits.broken(model)
        if broken:
            return replace(start, why=broken), made
        if model.digest == self._original.digest and choice.runtime == HOME:
            return replace(start, state="failed", stage="apply", why="it gives the original's graph"), None
        for other in tried:
            if other.model == model.digest and other.choice.runtime == choice.runtime:
                return replace(start, stage="apply", why=f"it gives the same graph as {other.name}"), None
        session = self._engines[choice.runtime].load(model)
        try:
            found = self._compared(start, model, session, rivals)
        finally:
            session.close()
        return found, made

    def _compared(self, start: Point, model: Model, session: Session, rivals: list[Point]) -> Point:
        """The tests that need answers: some rows, all rows, a glance at the clock, everything."""
        bar, held = self._bar, self._held
        start = replace(start, stage="first rows")
        few = {name: values[:_FIRST_ROWS] for name, values in held.tensors.items()}
        lost = self._hopeless(predict(session, few), len(next(iter(few.values()))))
        if lost:
            return replace(start, why=lost)
        answers = predict(session, held.tensors)
        start = replace(start, stage="all rows", measured={**start.measured, **self._qualities(answers)})
        lost = self._hopeless(answers, len(held.targets))
        if lost:
            return replace(start, why=lost)
        glance = self._glance(session)
        start = replace(start, stage="a glance", measured={**start.measured, "speedup": glance})
        rival = self._beaten(start, glance, rivals)
        if rival is not None:
            return replace(start, why=f"surely beaten by {rival.name}: slower, no smaller and no better")
        judged = self.judged(model, start.choice.runtime, self._seed, bar.seconds)
        costs = self._costs(session, model, start.choice.runtime)
        timed = glance if math.isnan(judged.speedup.value) else judged.speedup
        return replace(
            start, state="measured", stage="full", why=judged.why, accepted=judged.accepted,
            verdicts=judged.verdicts, measured={**start.measured, **costs, "speedup": timed},
        )  # fmt: skip

    def judged(self, model: Model, runtime: str, seed: int, seconds: float) -> Judgement:
        """The gate's judgement of a candidate on an engine."""
        bar = self._bar
        return judge(
            self._original, model, self._held, metric=bar.metric, margin=bar.margin, goal=bar.goal,
            slices=bar.slices, runtime=self._engines[HOME], candidate_runtime=self._engines[runtime],
            seed=seed, budget=seconds, batch=bar.batch, mixing=bar.mixing,
        )  # fmt: skip

    def _hopeless(self, answers: Array, rows: int) -> str:
        """Why a plan cannot be meant, from its first rows; empty while it can."""
        bar, metric = self._bar, metric_named(self._bar.metric)
        if not np.isfinite(answers).all() and np.isfinite(self._before[:rows]).all():
            return f"answers on {rows} rows are not all finite"
        found = difference(
            bar.metric, self._held.targets[:rows], self._before[:rows], answers, confidence=0.99
        )
        edge = found.high if metric.better == "higher" else found.low
        if edge is None or math.isnan(found.value):
            return ""
        least = metric.worse(edge)
        if least <= _HOPELESS * bar.margin:
            return ""
        return (
            f"{bar.metric} is at least {least:.3g} worse on {rows} rows, {_HOPELESS:g} margins are "
            f"{_HOPELESS * bar.margin:.3g}"
        )

    def _glance(self, session: Session) -> Measurement:
        wanted, one = (self._original.output,), self._one
        return speedup(
            lambda: self._home.run(one, wanted), lambda: session.run(one, wanted), pairs=60,
            budget_seconds=min(_GLANCE, self._bar.seconds), confidence=0.99, seed=self._seed, of="a glance",
        )  # fmt: skip

    def _beaten(self, start: Point, glance: Measurement, rivals: list[Point]) -> Point | None:
        """A rival that is surely faster, no larger and no worse."""
        better = metric_named(self._bar.metric).better
        own = start.value("quality", better), start.value("model_size")
        for rival in rivals:
            fast = rival.measured["speedup"].low
            if (
                fast is not None
                and glance.high is not None
                and fast > glance.high
                and rival.value("quality", better) >= own[0]
                and rival.value("model_size") >= own[1]
            ):
                return rival
        return None

    def _qualities(self, answers: Array) -> dict[str, Measurement]:
        bar, truth = self._bar, self._held.targets
        apart = difference(bar.metric, truth, self._before, answers, seed=self._seed)
        return {
            "quality": quality(bar.metric, truth, answers, seed=self._seed),
            "quality_difference": apart,
        }

    def _costs(self, session: Session, model: Model, runtime: str) -> dict[str, Measurement]:
        wanted, one = (self._original.output,), self._one
        many = {name: values[:_BATCH] for name, values in self._held.tensors.items()}
        rows = len(next(iter(many.values())))
        once = self._clock.monotonic()
        session.run(one, wanted)
        repeats = int(min(400, max(30, 0.5 / max(self._clock.monotonic() - once, 1e-6))))
        median, tail = latency(lambda: session.run(one, wanted), repeats=repeats)
        rate = throughput(
            lambda: session.run(many, wanted),
            rows,
            budget_seconds=min(0.2, self._bar.seconds),
            of=f"batches of {rows}",
        )
        return {
            "latency_p50": median,
            "latency_p99": tail,
            "throughput": rate,
            "model_size": size(model.onnx),
            "peak_memory": _memory(model, runtime),
        }


def require_engines(runtimes: Sequence[str]) -> None:
    """Raises `MissingExtra` for an engine that is not installed, before there is a model to try it with."""
    from onnx import TensorProto, helper

    one = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 1]) for name in ("x", "prediction")]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["prediction"])], "g", one[:1], one[1:])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    model = read_model(made.SerializeToString(), task="regression")
    for name in runtimes:
        RUNTIMES.get(name).load(model).close()


def _memory(model: Model, runtime: str) -> Measurement:
    given = payload(model.onnx, model.signature.to_json(), ChosenRuntime(runtime))
    try:
        return peak_memory(PROBE, stdin=given, of="a process that answers")
    except ModelyardError as error:
        return Measurement("peak_memory", math.nan, unit="bytes", method=f"no value: {error}")
