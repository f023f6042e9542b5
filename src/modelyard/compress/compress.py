"""Tries passes and keeps the best model that the gate accepts, else the one given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from modelyard.compress.catalogue import PASSES
from modelyard.compress.gate import Goal, Held, Judgement, judge, refusal
from modelyard.compress.pass_protocol import Pass
from modelyard.core.errors import ModelyardError
from modelyard.core.progress import Progress, quiet
from modelyard.core.spec import Tensors
from modelyard.measure.metric import Array

if TYPE_CHECKING:
    from modelyard.model.model import Model
    from modelyard.model.runtime import Runtime

FLOAT = "float"
"""What `Outcome.kept` says when nothing was accepted."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The model to go on with, every judgement by candidate name, and which was kept ("float": none)."""

    model: Model
    judgements: tuple[tuple[str, Judgement], ...]
    kept: str
    notes: Mapping[str, tuple[str, ...]]
    """What each pass said it did, by candidate name."""


def compress(
    model: Model,
    passes: Sequence[str],
    calibration: Tensors,
    held: Held,
    *,
    metric: str,
    margin: float,
    goal: Goal = "speed",
    slices: Mapping[str, Array] | None = None,
    runtime: Runtime | None = None,
    seed: int = 0,
    budget: float = 6.0,
    batch: int = 1,
    mixing: bool = False,
    progress: Progress = quiet,
) -> Outcome:
    """Applies each pass to the model given, judges what comes out and keeps the best accepted candidate.

    A name of `passes` is one of `PASSES`, or several joined by ">" that are applied one after the other
    ("graph>int8-dynamic"); a name with alternatives is tried with each. The best is the one whose speed-up is
    surest (its interval's lower end), or the smallest with `goal="size"`. A pass that raises, or does not
    apply, is a refusal that says so. `budget` is the seconds of timing in all. The model given is not
    changed. Raises `ModelyardError` for a pass that is not known, otherwise as `judge` does.
    """
    candidates = [chain for name in passes for chain in _chains(name)]
    judgements: list[tuple[str, Judgement]] = []
    notes: dict[str, tuple[str, ...]] = {}
    best: tuple[Model, str, Judgement] | None = None
    seen = {model.digest: "the model given"}
    for done, chain in enumerate(candidates):
        name = ">".join(step.name for step in chain)
        progress(done / len(candidates), name)
        try:
            candidate, notes[name] = _apply(model, chain, calibration)
        except Exception as error:  # Whatever a pass raises ends this candidate, not the run.
            judgements.append((name, refusal(_told(error))))
            continue
        if candidate.digest in seen:
            judgements.append(
                (name, refusal(f"does not apply: it gives the same graph as {seen[candidate.digest]}"))
            )
            continue
        seen[candidate.digest] = name
        found = judge(
            model, candidate, held, metric=metric, margin=margin, goal=goal, slices=slices, runtime=runtime,
            seed=seed, budget=budget / len(candidates), batch=batch, mixing=mixing,
        )  # fmt: skip
        judgements.append((name, found))
        if found.accepted and (best is None or _better(found, best[2], goal)):
            best = candidate, name, found
    progress(1.0, "compressed")
    if best is None:
        return Outcome(model, tuple(judgements), FLOAT, notes)
    return Outcome(best[0], tuple(judgements), best[1], notes)


def _chains(name: str) -> list[tuple[Pass, ...]]:
    """Every sequence of passes that a name stands for."""
    chains: list[tuple[Pass, ...]] = [()]
    for part in name.split(">"):
        alternatives = PASSES.get(part.strip())
        chains = [(*chain, step) for chain in chains for step in alternatives]
    return chains


def _apply(model: Model, chain: tuple[Pass, ...], calibration: Tensors) -> tuple[Model, tuple[str, ...]]:
    notes: list[str] = []
    for step in chain:
        found = step.apply(model, calibration)
        model = found.model
        notes.extend(found.notes if len(chain) == 1 else (f"{step.name}: {note}" for note in found.notes))
    return model, tuple(notes)


def _told(error: Exception) -> str:
    if isinstance(error, ModelyardError):
        return str(error)
    lines = str(error).strip().splitlines()
    return f"the pass failed: {type(error).__name__}" + (f": {lines[0][:200]}" if lines else "")


def _better(found: Judgement, best: Judgement, goal: Goal) -> bool:
    if goal == "size":
        return found.size_ratio > best.size_ratio
    return (found.speedup.low or 0.0) > (best.speedup.low or 0.0)
