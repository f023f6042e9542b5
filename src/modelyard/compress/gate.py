"""The gate: a candidate is accepted only on paired evidence of speed (or size), quality and sound answers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np

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
    seed: int = 0,
    budget: float = 2.0,
    batch: int = 1,
    mixing: bool = False,
) -> Judgement:
    """Judges a candidate against its original; a bad candidate is refused, never raised for.

    Accepted when it (1) answers with finite numbers within bounds on held-out, random and extreme rows, (2)
    is non-inferior at `margin` in `metric`'s unit, paired, on all held-out rows and on each slice (a mask [N]
    by name), and (3) is faster on this machine at `batch` rows with its whole 95 % interval above 1; or, with
    `goal="size"`, at least 1.1 times smaller and not shown to be slower. Cheap checks come first and a
    refusal ends the judging; timing takes at most about `budget` seconds. An answer that depends on the rows
    beside it (dynamic quantization scales a whole batch at once) is refused unless `mixing` says that the
    service never puts different callers into one batch. Raises `ValueError` for a margin that is not
    positive, a cost metric, no rows or a mask of another length, `ModelError` when the original itself cannot
    be run.
    """
    _check(data, metric, margin, slices or {})
    engine = OnnxRuntime() if runtime is None else runtime
    ratio = original.size / candidate.size
    if candidate.signature != original.signature:
        return refusal("its signature is not the original's", ratio)
    was = engine.load(original)
    try:
        now = engine.load(candidate)
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
        if not all(item.passed for item in verdicts):
            return refusal(next(item.why for item in verdicts if not item.passed), ratio, tuple(verdicts))
        if goal == "size" and ratio < SMALLER:
            return refusal(f"it is {ratio:.2f}x smaller, not {SMALLER}x", ratio, tuple(verdicts))
        one = {name: values[:batch] for name, values in data.tensors.items()}
        faster = _timed(was, now, one, original.output, seed, budget)
        return _decide(goal, faster, ratio, (*verdicts, _speed_verdict(goal, faster, batch)))
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
    """Non-inferiority on all rows and on each slice, up to the first that failed."""
    metric, margin = bar
    before, after = answers
    verdicts = [non_inferior(metric, truth, before, after, margin, seed=seed)]
    for name, mask in slices.items():
        if not verdicts[-1].passed:
            break
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


def _timed(was: Session, now: Session, rows: Tensors, output: str, seed: int, budget: float) -> Measurement:
    """The paired speed-up; a first short look at 99 % ends it early when the matter is plain."""
    wanted = (output,)

    def reference() -> object:
        return was.run(rows, wanted)

    def candidate() -> object:
        return now.run(rows, wanted)

    first = speedup(reference, candidate, pairs=150, budget_seconds=budget / 4, seed=seed, confidence=0.99)
    if (
        first.n >= 50
        and first.low is not None
        and first.high is not None
        and not first.low <= 1 <= first.high
    ):
        return first
    return speedup(reference, candidate, pairs=1000, budget_seconds=budget * 3 / 4, seed=seed + 1)


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
