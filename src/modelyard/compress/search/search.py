"""The search over plans: several objectives, hard limits first, bad plans out early, nothing ever lost."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from modelyard.compress.gate import Goal, Held, Judgement
from modelyard.compress.machine import this_machine
from modelyard.compress.search.bench import Bar, Bench
from modelyard.compress.search.found import Found
from modelyard.compress.search.journal import Journal, journal
from modelyard.compress.search.limits import Limits
from modelyard.compress.search.point import OBJECTIVES, Point, front
from modelyard.compress.search.space import HOME, Choice, Space
from modelyard.core.clock import SYSTEM_CLOCK, Clock
from modelyard.core.digest import digest_json, short
from modelyard.core.errors import ModelyardError
from modelyard.core.names import did_you_mean
from modelyard.core.progress import Progress, quiet
from modelyard.core.spec import Tensors
from modelyard.measure.metric import Array
from modelyard.measure.metric import metric as metric_named
from modelyard.measure.requirement import Requirement
from modelyard.model.reader import read_model

if TYPE_CHECKING:
    from modelyard.model.model import Model
    from modelyard.store.objects import ObjectStore
    from modelyard.store.records import Records

BUDGET = 240.0
"""Seconds, when nothing else is asked for: with what comes after, under five minutes."""
KIND = "compress.search"
"""The kind of the document that each search leaves in the records."""
_MOST = 10_000
_LEADERS = 3
_SETTINGS = 8
_TUNING = 0.1
"""Of the budget, for session options."""
INTERRUPTED = "interrupted before a choice was made: the same command goes on from here"
_WEIGHED = ("quality", "speedup", "model_size")


def search_plans(
    model: Model, space: Space, calibration: Tensors, held: Held, *, records: Records, objects: ObjectStore,
    metric: str, margin: float, name: str = "search", goal: Goal = "speed",
    slices: Mapping[str, Array] | None = None, limits: Limits | None = None,
    goals: Sequence[Requirement] = (),
    objectives: Sequence[str] = _WEIGHED, budget: float = BUDGET, trials: int | None = None, seed: int = 0,
    sampler: str = "tpe", mixing: bool = False, seconds: float = 1.5, tuning: Path | None = None,
    progress: Progress = quiet, clock: Clock = SYSTEM_CLOCK,
) -> Found:  # fmt: skip
    """Tries plans of a space until the budget (seconds, of all runs of this search together), the number of
    trials or the space is used up, and chooses among what the gate accepted.

    Every plan is held against the `limits` before it is trained or timed (by its sketch where it trains),
    then answers a few rows, all rows, a glance at the clock, and only then is measured in full, in pairs for
    `seconds`; it ends at the first test that shows it to be no use. Each tried plan is a trial in the
    records' database and its model an object of the store: after an end of any kind the same call goes on
    from there. The search belongs to this model, these rows, this bar, space, seed and kind of machine; a
    change begins anew.

    The chosen plan is the best accepted one that meets the `goals` (requirements on what was measured), after
    its leaders were timed once more on fresh pairs, so that a lucky look does not choose. When nothing is
    accepted the original is kept, and the front tells what there was. With a folder for `tuning`, the session
    options of onnxruntime are then tuned for what is kept. An interrupt (Ctrl-C) ends it with what there is
    by then, nothing chosen. Raises `MissingExtra` for an engine (or Optuna) that is not installed,
    `StoreError` when the database is lost.
    """
    _check(objectives, sampler)
    bar = Bar(metric, margin, goal, dict(slices or {}), limits or Limits(), mixing, seconds=seconds)
    identity = _identity(model, space, calibration, held, bar, tuple(goals), tuple(objectives), seed, sampler)
    title = f"compress {name}@{identity}"
    bench = Bench(model, calibration, held, space, bar, seed, clock)
    better = metric_named(metric).better
    ways = tuple("maximize" for _ in objectives)
    try:
        progress(0.0, "the original")
        baseline = bench.baseline()
        # Optuna opens the database by itself, and only this makes it where it is new.
        records.put_document(KIND, title, {"metric": metric, "goal": goal, "space": space.to_json()})
        with journal(records, title, space, ways, seed=seed, sampler=sampler) as kept:
            run = _Run(
                bench, kept, space, baseline, tuple(objectives), better, objects, seed, clock, progress
            )
            stopped = run.until(budget, trials)
            points = kept.points()
        ahead = front([baseline, *points], tuple(objectives), better)
        seconds = baseline.seconds + sum(point.seconds for point in points)
        found = Found(
            title, model, baseline, tuple(points), tuple(ahead), None, HOME, INTERRUPTED, stopped, seconds,
            space.size, metric, goal, tuple(objectives), tuple(goals), interrupted=stopped == INTERRUPTED,
        )  # fmt: skip
        if found.interrupted:
            return found
        try:
            found = _decided(found, bench, bar, objects, space, seed, progress)
            found = found if tuning is None else _tuned(found, held, tuning, budget, seed, progress)
        except KeyboardInterrupt:
            return replace(found, why=INTERRUPTED, stopped=INTERRUPTED, interrupted=True)
    finally:
        bench.close()
    progress(1.0, "searched")
    return found


def _decided(
    found: Found, bench: Bench, bar: Bar, objects: ObjectStore, space: Space, seed: int, progress: Progress
) -> Found:
    """The same with the choice."""
    progress(0.97, "the best once more")
    chosen, confirmed, why = _choose(list(found.points), bench, bar, found.goals, objects, found.model, seed)
    if chosen is None:
        return replace(found, why=why, confirmed=confirmed)
    family = space.family(chosen.choice.family)
    return replace(
        found, model=_model(objects, chosen, found.model), chosen=chosen, runtime=chosen.choice.runtime,
        why=why, confirmed=confirmed, plan=family.make(chosen.choice.options).name,
    )  # fmt: skip


def _tuned(found: Found, held: Held, folder: Path, budget: float, seed: int, progress: Progress) -> Found:
    """The same with the session options that are surely faster for the model that is kept."""
    if found.runtime != HOME:
        return found
    from modelyard.compress.tuner.onnx_session import as_settings, tune_session

    progress(0.98, "session options")
    one = {name: values[:1] for name, values in held.tensors.items()}
    try:
        tuned = tune_session(
            found.model, one, folder=folder, trials=_SETTINGS, budget=_TUNING * budget, seconds=0.4,
            seed=seed, most_threads=1,
        )  # fmt: skip
    except ModelyardError as error:
        return replace(found, tuned=f"the session options were not tuned: {error}")
    return replace(found, settings=as_settings(tuned), tuned=tuned.why)


@dataclass(frozen=True, slots=True)
class _Run:
    bench: Bench
    kept: Journal
    space: Space
    baseline: Point
    objectives: tuple[str, ...]
    better: str
    objects: ObjectStore
    seed: int
    clock: Clock
    progress: Progress

    def until(self, budget: float, trials: int | None) -> str:
        """Tries plans until a limit; says which it was."""
        points = self.kept.points()
        spent, began = sum(point.seconds for point in points), self.clock.monotonic()
        most = min(self.space.size, _MOST if trials is None else trials)
        # What an earlier run was killed in is finished before anything new is begun.
        try:
            return self._through(points, most, budget, spent, began)
        except KeyboardInterrupt:
            return INTERRUPTED

    def _through(self, points: list[Point], most: int, budget: float, spent: float, began: float) -> str:
        while len(points) < most:
            used = spent + self.clock.monotonic() - began
            if used >= budget and points:
                return f"the budget of {budget:g} s is used up"
            trial, choice = self._next(points)
            self._tell(used / max(budget, 1e-9), len(points), most, choice.name)
            rivals = front([self.baseline, *points], self.objectives, self.better)
            point, model = self.bench.point(len(points), choice, rivals, points)
            if model is not None:
                self.objects.put(model.onnx)
            self.kept.keep(trial, point, self._values(point))
            points.append(point)
        return "every plan of the space was tried" if most == self.space.size else f"{most} plans were tried"

    def _next(self, points: list[Point]) -> tuple[object, Choice]:
        """First each family as it is, then what the sampler likes; a choice made before gives way to one
        that was not."""
        seen = {point.choice.key for point in points}
        start = next((item for item in self.space.first() if item.key not in seen), None)
        trial, choice = self.kept.ask(len(points), start)
        if choice.key not in seen and self.space.has(choice):
            return trial, choice
        self.kept.drop(trial)
        trial, choice = self.kept.ask(len(points), self._untried(seen, len(points)))
        while choice.key in seen or not self.space.has(choice):
            # An interrupted trial of a choice that was finished otherwise stood before ours.
            self.kept.drop(trial)
            trial, choice = self.kept.ask(len(points))
        return trial, choice

    def _untried(self, seen: set[str], done: int) -> Choice:
        """One of the plans that were not tried, drawn by the seed."""
        left = []
        for choice in self.space.every():
            if choice.key not in seen:
                left.append(choice)
                if len(left) >= _MOST:
                    break
        return left[int(np.random.default_rng([self.seed, done]).integers(len(left)))]

    def _values(self, point: Point) -> tuple[float, ...] | None:
        if point.state != "measured":
            return None
        values = tuple(point.value(name, self.better) for name in self.objectives)
        return values if all(math.isfinite(value) for value in values) else None

    def _tell(self, used: float, done: int, most: int, name: str) -> None:
        self.progress(0.02 + 0.95 * min(1.0, max(used, done / most)), f"plan {done + 1}: {name}")


def _choose(
    points: list[Point], bench: Bench, bar: Bar, goals: Sequence[Requirement], objects: ObjectStore,
    original: Model, seed: int,
) -> tuple[Point | None, dict[int, Judgement], str]:  # fmt: skip
    """The point to keep, the second looks at the leaders, and why in one sentence."""
    accepted = [point for point in points if point.accepted]
    if not accepted:
        return None, {}, _nothing(points)
    meeting = [point for point in accepted if not _missed(point, goals, bar.metric)]
    if not meeting:
        nearest = max(accepted, key=lambda point: _rank(point, bar.goal))
        missed = "; ".join(_missed(nearest, goals, bar.metric))
        return None, {}, f"the original is kept: no accepted plan meets the goal; {nearest.name}: {missed}"
    leaders = sorted(meeting, key=lambda point: _rank(point, bar.goal), reverse=True)[:_LEADERS]
    looks: dict[int, Judgement] = {}
    for place, point in enumerate(leaders):
        model = _model(objects, point, original)
        looks[point.number] = bench.judged(model, point.choice.runtime, seed + 1000 + place, 2 * bar.seconds)
    sure = [point for point in leaders if looks[point.number].accepted]
    if not sure:
        told = f"{leaders[0].name} {looks[leaders[0].number].why}"
        return None, looks, f"the original is kept: what was accepted did not stand a second look: {told}"
    again = [
        replace(point, measured={**point.measured, "speedup": looks[point.number].speedup}) for point in sure
    ]
    best = max(again, key=lambda point: _rank(point, bar.goal))
    which = "smallest" if bar.goal == "size" else "surest gain in speed"
    among = f"{len(accepted)} accepted plan{'s' if len(accepted) > 1 else ''}"
    if len(meeting) < len(accepted):
        among = f"the {len(meeting)} of {among} that meet every requirement"
    why = f"{best.name} is the {which} of {among}: {looks[best.number].why}"
    return next(point for point in sure if point.number == best.number), looks, why


def _rank(point: Point, goal: Goal) -> tuple[float, ...]:
    fast = point.measured["speedup"].low or 0.0
    small = -point.measured["model_size"].value
    return (small, fast) if goal == "size" else (fast, small)


def _missed(point: Point, goals: Sequence[Requirement], metric: str) -> list[str]:
    """The goals that a point misses, in words; a goal on what a search does not measure is not held."""
    found = []
    for goal in goals:
        measured = point.measured.get("quality" if goal.metric == metric else goal.metric)
        if measured is not None and not goal.slice:
            verdict = goal.judge(measured)
            if not verdict.passed:
                found.append(f"{goal.metric}: {verdict.why}")
    return found


def _nothing(points: list[Point]) -> str:
    """Why the original is kept, with the plan that came nearest."""
    measured = [point for point in points if point.state == "measured"]
    if measured:
        nearest = max(measured, key=lambda point: point.measured["speedup"].low or 0.0)
        none = f"none of {len(measured)} measured plans was accepted"
        return f"the original is kept: {none}; {nearest.name}: {nearest.why}"
    limited = [point for point in points if point.stage == "limits"]
    if limited:
        sized = [point for point in limited if "model_size" in point.measured] or limited
        nearest = min(sized, key=lambda point: getattr(point.measured.get("model_size"), "value", math.inf))
        return (
            f"the original is kept: no plan keeps the hard limits; the nearest, {nearest.name}: {nearest.why}"
        )
    if points:
        return f"the original is kept: no plan came to be measured; {points[0].name}: {points[0].why}"
    return "the original is kept: nothing was tried"


def _model(objects: ObjectStore, point: Point, original: Model) -> Model:
    if point.model is None:
        raise ModelyardError("the point has no model", value=point.name)
    if point.model == original.digest:
        return original
    return read_model(objects.get(point.model), task=original.task, labels=original.labels)


def _check(objectives: Sequence[str], sampler: str) -> None:
    if not objectives:
        raise ValueError("a search weighs at least one objective")
    for item in objectives:
        if item not in OBJECTIVES:
            raise ModelyardError("unknown objective", value=item, fix=did_you_mean(item, OBJECTIVES))
    if sampler not in ("tpe", "nsga2", "random"):
        raise ModelyardError(
            "unknown sampler", value=sampler, fix=did_you_mean(sampler, ["tpe", "nsga2", "random"])
        )


def _identity(
    model: Model, space: Space, calibration: Tensors, held: Held, bar: Bar, goals: tuple[Requirement, ...],
    objectives: tuple[str, ...], seed: int, sampler: str,
) -> str:  # fmt: skip
    """What a search belongs to, in 12 hex digits. Goals only decide at the end and do not belong to it."""
    limits = bar.limits
    return short(
        digest_json(
            {
                "model": model.digest,
                "space": space.to_json(),
                "calibration": _rows(calibration),
                "held": _rows({**held.tensors, " targets": held.targets}),
                "bar": [bar.metric, bar.margin, bar.goal, bar.mixing, bar.batch, bar.seconds],
                "slices": _rows({name: np.asarray(mask) for name, mask in bar.slices.items()}),
                "limits": [limits.bytes, limits.macs, sorted(limits.operators or ())],
                "objectives": list(objectives),
                "seed": seed,
                "sampler": sampler,
                "machine": this_machine().fingerprint,
            }
        )
    )


def _rows(tensors: Mapping[str, Array]) -> str:
    state = hashlib.sha256()
    for name in sorted(tensors):
        values = tensors[name]
        state.update(f"{name} {values.dtype} {values.shape}".encode())
        state.update(repr(values.tolist()).encode() if values.dtype == object else values.tobytes())
    return state.hexdigest()
