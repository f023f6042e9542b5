"""The gate: a candidate is accepted only on paired evidence of speed (or size), quality and sound answers.

Four things are asked, in this order because the first are the cheapest: (3) sound answers, (2) quality on all
rows and on each slice, (4) int8 operators that really run as int8, (1) speed. A refusal names what lost.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np

from modelyard.compress.execution import meant_int8, operator_runs, ran_as_meant, shifts
from modelyard.compress.graph_file import parse
from modelyard.compress.soundness import sound
from modelyard.core.errors import ModelError
from modelyard.core.spec import Tensors
from modelyard.measure.compare import non_inferior, rows_to_prove
from modelyard.measure.cost import speedup
from modelyard.measure.measurement import Measurement, Verdict
from modelyard.measure.metric import Array
from modelyard.measure.metric import metric as metric_named
from modelyard.model.onnx_runtime import OnnxRuntime
from modelyard.model.predict import predict

if TYPE_CHECKING:
    from modelyard.model.model import Model
    from modelyard.model.runtime import Runtime, Session

Goal: TypeAlias = Literal["speed", "size"]

_BATCH = 256
_TOLD = 3
_LOADS = 3
_PLAIN = 0.6
"""Slower than this at the first load, no luck with memory makes up for it."""
SMALLER = 1.1
"""A candidate is smaller when the original has at least 1.1 times its bytes."""


@dataclass(frozen=True, slots=True)
class Held:
    """Held-out rows: the model's inputs and their targets (int64 class indices, or float64 values) [N]."""

    tensors: Tensors
    targets: Array


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the gate found. `why` is one sentence with numbers; `size_ratio` is original over candidate.

    `verdicts` hold the whole trade-off: each slice's paired difference, the operators that ran, the time of
    each kind of operator in both models.

    `speedup` is NaN, and its method says why, for a candidate that was refused before it was timed.
    """

    accepted: bool
    verdicts: tuple[Verdict, ...]
    why: str
    speedup: Measurement
    size_ratio: float


def judge(
    original: Model,
    candidate: Model,
    data: Held,
    *,
    metric: str,
    margin: float,
    goal: Goal = "speed",
    slices: Mapping[str, Array] | None = None,
    runtime: Runtime | None = None,
    candidate_runtime: Runtime | None = None,
    seed: int = 0,
    budget: float = 2.0,
    batch: int = 1,
    mixing: bool = False,
) -> Judgement:
    """Judges a candidate against its original; a bad candidate is refused, never raised for.

    Accepted when it (1) answers with finite numbers within bounds on held-out, random and extreme rows, (2)
    is non-inferior at `margin` in `metric`'s unit, paired, on all held-out rows and on each slice (a mask [N]
    by name), (3) runs in int8 every operator that its graph means to, as the engine itself reports, and (4)
    is faster on this machine at `batch` rows with its whole 95 % interval above 1; or, with `goal="size"`, at
    least 1.1 times smaller and not shown to be slower. Cheap checks come first and a refusal ends the
    judging, naming the slices or the operators that lost; timing takes at most about `budget` seconds. With
    `candidate_runtime` the candidate runs on that engine and the original on `runtime`, so that another
    engine is chosen by the same evidence. An answer that depends on the rows beside it (dynamic quantization
    scales a whole batch at once) is refused unless `mixing` says that the service never puts different
    callers into one batch. Raises `ValueError` for a margin that is not positive, a cost metric, no rows or a
    mask of another length, `ModelError` when the original itself cannot be run, `MissingExtra` when an engine
    is not installed.
    """
    _check(data, metric, margin, slices or {})
    engine = OnnxRuntime() if runtime is None else runtime
    other = engine if candidate_runtime is None else candidate_runtime
    ratio = original.size / candidate.size
    if candidate.signature != original.signature:
        return refusal("its signature is not the original's", ratio)
    was = engine.load(original)
    try:
        now = other.load(candidate)
    except ModelError as error:
        was.close()
        return refusal(f"the runtime cannot load it: {error}", ratio)
    try:
        answers = _answers(was, now, data.tensors, batch if mixing else _BATCH)
        if isinstance(answers, Verdict):
            return refusal(answers.why, ratio, (answers,))
        verdicts = [sound(original, (was, now), data.tensors, answers, seed, mixing=mixing)]
        if verdicts[0].passed:
            verdicts += _quality((metric, margin), data.targets, answers, slices or {}, seed)
        one = {name: values[:batch] for name, values in data.tensors.items()}
        if all(item.passed for item in verdicts):
            verdicts.append(_operators(candidate, one, other.name))
        if not all(item.passed for item in verdicts):
            return refusal("; ".join(_told(verdicts)), ratio, tuple(verdicts))
        if goal == "size" and ratio < SMALLER:
            return refusal(f"it is {ratio:.2f}x smaller, not {SMALLER}x", ratio, tuple(verdicts))
        faster = _timed(
            (was, now), lambda: (engine.load(original), other.load(candidate)), (one, original.output), seed,
            budget,
        )  # fmt: skip
        speed = _speed_verdict(goal, faster, batch)
        if not speed.passed:
            speed = _explained(speed, (original, engine.name), (candidate, other.name), one)
        return _decide(goal, faster, ratio, (*verdicts, speed))
    finally:
        was.close()
        now.close()


def refusal(why: str, ratio: float = math.nan, verdicts: tuple[Verdict, ...] = ()) -> Judgement:
    """A judgement that ends before anything was timed."""
    if not verdicts:
        verdicts = (Verdict("compress.applies", False, why),)
    missing = Measurement("speedup", math.nan, unit="x", method="no value: refused before it was timed")
    return Judgement(False, verdicts, why, missing, ratio)


def _check(data: Held, metric: str, margin: float, slices: Mapping[str, Array]) -> None:
    rows = len(data.targets)
    if metric_named(metric).task == "cost":
        raise ValueError(f"{metric} is a cost; the gate holds quality against the margin")
    if not margin > 0:
        raise ValueError(f"the margin is a positive number in the metric's unit, got {margin}")
    if rows == 0 or any(len(values) != rows for values in data.tensors.values()):
        raise ValueError(f"held-out rows and their {rows} targets do not fit, or there are none")
    for name, mask in slices.items():
        if len(mask) != rows:
            raise ValueError(f"slice {name!r} marks {len(mask)} rows of {rows}")


def _answers(was: Session, now: Session, rows: Tensors, batch: int) -> tuple[Array, Array] | Verdict:
    """Both models' answers on the held-out rows, or the verdict that the candidate has none."""
    before = predict(was, rows, batch=batch)
    try:
        return before, predict(now, rows, batch=batch)
    except ModelError as error:
        return Verdict("compress.sound", False, f"it cannot answer the held-out rows: {error}")


def _quality(
    bar: tuple[str, float], truth: Array, answers: tuple[Array, Array], slices: Mapping[str, Array], seed: int
) -> list[Verdict]:
    """Non-inferiority on all rows and on each slice."""
    metric, margin = bar
    before, after = answers
    verdicts = [non_inferior(metric, truth, before, after, margin, seed=seed)]
    for name, mask in slices.items():
        rows = np.flatnonzero(mask)
        verdicts.append(_slice(bar, name, truth[rows], (before[rows], after[rows]), seed))
    return verdicts


def _slice(
    bar: tuple[str, float], name: str, truth: Array, answers: tuple[Array, Array], seed: int
) -> Verdict:
    metric, margin = bar
    rows = len(truth)
    if rows == 0:
        why = f"slice {name} has no held-out rows: nothing was compared"
        return Verdict(f"non_inferior.{metric}[{name}]", True, why, (), margin)
    verdict = non_inferior(metric, truth, *answers, margin, seed=seed, of=name)
    if metric == "accuracy" and rows < rows_to_prove(margin) and verdict.details:
        # No answers could prove so small a margin here; one lost row must not refuse, two must.
        lost = int(verdict.details["lost"]) - int(verdict.details["gained"])
        passed = lost <= max(1.0, margin * rows)
        why = f"slice {name}: {lost} more of {rows} rows wrong (too few to prove {margin:g}; 1 is let pass)"
        return replace(verdict, passed=passed, why=why)
    return replace(verdict, why=f"slice {name}: {verdict.why}")


def _told(verdicts: list[Verdict]) -> list[str]:
    """Why a candidate was refused: the failed verdicts, the first ones in words."""
    failed = [item.why for item in verdicts if not item.passed]
    more = [f"{len(failed) - _TOLD} more slices lost quality"] if len(failed) > _TOLD else []
    return failed[:_TOLD] + more


def _operators(candidate: Model, one: Tensors, runtime: str) -> Verdict:
    """Whether what the graph means to be int8 ran as int8, by the engine's own account."""
    meant = meant_int8(parse(candidate))
    if not meant:
        return Verdict("compress.operators", True, "the graph asks for no int8 arithmetic")
    runs = operator_runs(candidate, one, runtime=runtime, repeats=1)
    if runs is None:
        why = (
            f"{runtime} does not tell which operators it runs: {len(meant)} meant to be int8 were not checked"
        )
        return Verdict("compress.operators", True, why, details={"meant": list(meant.values()), "ran": None})
    lost, ran = ran_as_meant(meant, runs)
    details = {"meant": list(meant.values()), "ran": [run.operator for run in ran], "not_int8": list(lost)}
    if not lost:
        why = f"all {len(meant)} operators meant to be int8 ran as int8"
        return Verdict("compress.operators", True, why, details=details)
    named = ", ".join(lost[:_TOLD]) + (f" and {len(lost) - _TOLD} more" if len(lost) > _TOLD else "")
    why = f"{len(lost)} of {len(meant)} operators meant to be int8 ran in float: {named}"
    return Verdict("compress.operators", False, why, details=details)


def _explained(
    speed: Verdict, original: tuple[Model, str], candidate: tuple[Model, str], one: Tensors
) -> Verdict:
    """The verdict on speed with the operators that took longer, measured in the engines themselves."""
    sides = [operator_runs(model, one, runtime=runtime) for model, runtime in (original, candidate)]
    if sides[0] is None or sides[1] is None:
        return speed
    moved = shifts(sides[0], sides[1])
    lost = [str(item) for item in moved if item.lost > 0][:_TOLD]
    why = f"{speed.why}; time was lost in {', '.join(lost)}" if lost else speed.why
    return replace(speed, why=why, details={"operators": [item.to_json() for item in moved]})


def _timed(
    first: tuple[Session, Session], load: Callable[[], tuple[Session, Session]], call: tuple[Tensors, str],
    seed: int, budget: float,
) -> Measurement:  # fmt: skip
    """The paired speed-up over several loads of both models: where a load happens to put its buffers can make
    a small model half as fast again, which no number of pairs within one load would show."""
    looks: list[Measurement] = []
    for number in range(_LOADS):
        was, now = first if number == 0 else load()
        try:
            look = speedup(
                _calling(was, *call), _calling(now, *call), pairs=400, budget_seconds=budget / _LOADS,
                seed=seed + number,
            )  # fmt: skip
        finally:
            if number:
                was.close()
                now.close()
        looks.append(look)
        if look.high is None or look.low is None or look.high < _PLAIN:
            return look
    return _together(looks)


def _calling(session: Session, rows: Tensors, output: str) -> Callable[[], object]:
    wanted = (output,)
    return lambda: session.run(rows, wanted)


def _together(looks: list[Measurement]) -> Measurement:
    """The middle look, with the widest ends of all: what holds whichever load a service happens to get."""
    middle = sorted(looks, key=lambda item: item.value)[len(looks) // 2]
    low = min(item.low for item in looks if item.low is not None)
    high = max(item.high for item in looks if item.high is not None)
    told = f"{middle.method}, the widest ends of {len(looks)} loads"
    return replace(middle, low=low, high=high, n=sum(item.n for item in looks), method=told)


def _speed_verdict(goal: Goal, faster: Measurement, batch: int) -> Verdict:
    shown = f"{faster.value:.2f}x the original's speed [{faster.low:.2f}, {faster.high:.2f}] at batch {batch}"
    if goal == "size":
        passed = faster.high is not None and faster.high >= 1
        return Verdict("compress.speed", passed, f"{shown}, {'not ' if passed else ''}slower", (faster,), 1.0)
    passed = faster.low is not None and faster.low > 1
    return Verdict(
        "compress.speed", passed, f"{shown}, {'' if passed else 'not '}surely faster", (faster,), 1.0
    )


def _decide(goal: Goal, faster: Measurement, ratio: float, verdicts: tuple[Verdict, ...]) -> Judgement:
    speed = verdicts[-1]
    if not speed.passed:
        return Judgement(False, verdicts, f"it runs at {speed.why}", faster, ratio)
    quality = next(item.why for item in verdicts if item.claim.startswith("non_inferior."))
    why = f"{ratio:.2f}x smaller at {speed.why}; {quality}"
    return Judgement(True, verdicts, why, faster, ratio)
