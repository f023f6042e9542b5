"""Whether a candidate still answers like a model: finite and within bounds, on rows of every kind."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from modelyard.core.errors import ModelError
from modelyard.core.spec import Tensors, TensorSpec
from modelyard.measure.measurement import Measurement, Verdict
from modelyard.measure.metric import Array
from modelyard.model.predict import predict

if TYPE_CHECKING:
    from modelyard.model.model import Model
    from modelyard.model.runtime import Session

Answers: TypeAlias = Array
CLAIM = "compress.sound"
_ROWS = 64
_SUM = 0.02
_BESIDE = 16


def sound(
    model: Model,
    sessions: tuple[Session, Session],
    held: Tensors,
    answers: tuple[Answers, Answers],
    seed: int,
    *,
    mixing: bool = False,
) -> Verdict:
    """Judges a candidate's answers on held-out, random and extreme rows.

    `sessions` are the original's and the candidate's, `answers` theirs on the held-out rows. Wherever the
    original answers with finite numbers, so must the candidate; probabilities lie in [0, 1] and sum to one
    within 0.02; a regression's predictions stay within the original's range on the same rows, widened by that
    range (and a little) to each side. Extreme rows are answered one by one. Unless `mixing` is allowed, an
    answer must not depend on the rows beside it where the original's does not: a server puts rows of
    different callers into one batch.
    """
    specs = model.signature.inputs
    extreme = extreme_rows(specs, held)
    kinds: dict[str, tuple[Answers, Answers]] = {"held-out": answers}
    for kind, rows, batch in (
        ("random", random_rows(specs, held, np.random.default_rng(seed)), 256),
        ("extreme", extreme, 1),
    ):
        try:
            kinds[kind] = (
                predict(sessions[0], rows, batch=batch),
                predict(sessions[1], rows, batch=batch),
            )
        except ModelError as error:
            return Verdict(CLAIM, False, f"cannot answer {kind} rows: {error}")
    found: list[Measurement] = []
    for kind, (was, now) in kinds.items():
        reason = _wrong(model, was, now)
        if reason:
            return Verdict(CLAIM, False, f"on {kind} rows {reason}", tuple(found))
        both = np.isfinite(was) & np.isfinite(now)
        far = float(np.max(np.abs(now[both] - was[both]), initial=0.0))
        found.append(Measurement("largest_change", far, n=len(was), of=kind))
    told = ", ".join(f"{item.value:.3g} on {item.n} {item.of} rows" for item in found)
    own, new = (_moved(session, held, extreme) for session in sessions)
    if new > 1e-4 + 10 * own and not mixing:
        why = (
            f"an answer depends on the rows beside it: next to extreme rows it moves by {new:.3g}, "
            f"the original's by {own:.3g}; a service that batches different callers must not run it"
        )
        return Verdict(CLAIM, False, why, tuple(found), details={"moved_by_neighbours": new})
    why = f"answers are finite and within bounds; they move by at most {told}"
    return Verdict(CLAIM, True, why, tuple(found), details={"moved_by_neighbours": new})


def _moved(session: Session, held: Tensors, extreme: Tensors) -> float:
    """By how much held-out answers move when extreme rows stand beside them in place of their likes."""
    count = min(_BESIDE, *(len(values) for values in held.values()))
    answers = []
    for neighbours in (held, extreme):
        rows = {
            name: np.concatenate([values[:count], np.resize(neighbours[name], (8, *values.shape[1:]))])
            for name, values in held.items()
        }
        answers.append(predict(session, rows)[:count])
    alone, beside = answers
    if (np.isfinite(alone) & ~np.isfinite(beside)).any():
        return float("inf")
    both = np.isfinite(alone) & np.isfinite(beside)
    return float(np.max(np.abs(alone[both] - beside[both]), initial=0.0))


def _wrong(model: Model, was: Answers, now: Answers) -> str:
    """What is wrong with the candidate's answers, with numbers; empty when nothing is."""
    if was.shape != now.shape:
        return f"answers have the shape {list(now.shape)}, not {list(was.shape)}"
    usable = np.isfinite(was).all(axis=1)
    lost = int(np.sum(usable & ~np.isfinite(now).all(axis=1)))
    if lost:
        return f"{lost} of {len(was)} answers are not finite where the original's are"
    was, now = was[usable].astype(np.float64), now[usable].astype(np.float64)
    if not len(was):
        return ""
    return _improbable(was, now) if model.task == "classification" else _out_of_range(was, now)


def _improbable(was: Answers, now: Answers) -> str:
    low, high = float(now.min()), float(now.max())
    off, own = (float(np.abs(side.sum(axis=1) - 1).max()) for side in (now, was))
    if low >= -_SUM and high <= 1 + _SUM and off <= max(_SUM, 2 * own):
        return ""
    return f"probabilities reach from {low:.3g} to {high:.3g} and miss a sum of one by {off:.3g}"


def _out_of_range(was: Answers, now: Answers) -> str:
    low, high = float(was.min()), float(was.max())
    reach = max(high - low, 0.1 * max(abs(low), abs(high)), 1e-6)
    if now.min() >= low - reach and now.max() <= high + reach:
        return ""
    return (
        f"predictions reach from {now.min():.4g} to {now.max():.4g}, "
        f"the original's from {low:.4g} to {high:.4g}"
    )


def random_rows(specs: tuple[TensorSpec, ...], held: Tensors, rng: np.random.Generator) -> Tensors:
    """Rows whose values are drawn one by one across each input's range in the held-out rows, and beyond."""
    return {spec.name: _drawn(spec, held[spec.name], rng) for spec in specs}


def extreme_rows(specs: tuple[TensorSpec, ...], held: Tensors) -> Tensors:
    """Rows of one kind each: all zero, least, greatest, ten times those, very large, tiny, and missing."""
    return {spec.name: _extremes(spec, held[spec.name]) for spec in specs}


def _drawn(spec: TensorSpec, values: Array, rng: np.random.Generator) -> Array:
    shape = (_ROWS, *values.shape[1:])
    if spec.datatype in ("BYTES", "BOOL") or not values.size:
        pool = values.ravel() if values.size else np.array(["" if spec.datatype == "BYTES" else 0])
        return rng.choice(pool, size=shape).astype(spec.dtype)
    low, high = _range(values)
    drawn = rng.uniform(1.5 * low - 0.5 * high, 1.5 * high - 0.5 * low, size=shape)
    return _typed(drawn, spec)


def _extremes(spec: TensorSpec, values: Array) -> Array:
    tail = values.shape[1:]
    if spec.datatype == "BYTES":
        kinds: list[object] = ["", "x", "\u00e9\U0001f600", "0", "-1", "nan", "a" * 1000, " "]
        return np.array([np.full(tail, kind, dtype=object) for kind in kinds], dtype=object).reshape(8, *tail)
    low, high = (0.0, 1.0) if spec.datatype == "BOOL" else _range(values)
    missing = np.nan if spec.datatype.startswith("FP") else 0.0
    levels = np.array([0.0, low, high, 10 * low, 10 * high, 1e6, 1e-30, missing])
    return _typed(np.broadcast_to(levels.reshape(8, *(1 for _ in tail)), (8, *tail)), spec)


def _range(values: Array) -> tuple[float, float]:
    usable = values[np.isfinite(values)] if values.dtype.kind == "f" else values
    return (float(usable.min()), float(usable.max())) if usable.size else (0.0, 1.0)


def _typed(values: Array, spec: TensorSpec) -> Array:
    if spec.datatype.startswith("FP"):
        limit = float(np.finfo(spec.dtype).max)
        return np.clip(values, -limit, limit).astype(spec.dtype)
    if spec.datatype == "BOOL":
        return values > 0
    bounds = np.iinfo(spec.dtype)
    return np.clip(np.rint(values), max(bounds.min, -(2**53)), min(bounds.max, 2**53)).astype(spec.dtype)
