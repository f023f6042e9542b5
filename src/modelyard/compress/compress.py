"""Tries passes and keeps the best model that the gate accepts, else the one given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from modelyard.compress.catalogue import PASSES
from modelyard.compress.gate import Goal, Held, Judgement, judge, refusal
from modelyard.compress.pass_protocol import Pass
from modelyard.compress.plan_order import require_order
from modelyard.core.errors import ModelError, ModelyardError
from modelyard.core.progress import Progress, quiet
from modelyard.core.spec import Tensors
from modelyard.measure.metric import Array
from modelyard.model.chosen_runtime import DEFAULT_RUNTIME, ChosenRuntime, Settings
from modelyard.model.onnx_runtime import OnnxRuntime
from modelyard.model.runtimes import RUNTIMES

if TYPE_CHECKING:
    from modelyard.compress.plan_trainable import Trainable
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
    runtime: str = "onnxruntime"
    """The engine that the model kept was measured on."""
    settings: Settings = field(default_factory=dict)
    """The session options that it was measured with, where they are not the default's."""


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
    engines: Sequence[str] = (),
    trainable: Trainable | None = None,
    progress: Progress = quiet,
) -> Outcome:
    """Applies each pass to the model given, judges what comes out and keeps the best accepted candidate.

    A name of `passes` is one of `PASSES`, or several joined by ">" that are applied one after the other
    ("graph>int8-dynamic"); a name with alternatives is tried with each. Anything else is a plan's text
    ("prune-units(0.5) > tune > int8-static"), with `trainable` for the steps that train. With `engines`
    every candidate, and the model itself, is also judged on those ("NAME@ENGINE"). The best is the one whose
    speed-up is surest (its interval's lower end), or the smallest with `goal="size"`. A pass that raises, or
    does not apply, is a refusal that says so. `budget` is the seconds of timing in all. The model given is
    not changed. Raises `ModelyardError` for a pass that is not known or follows one that it
    would undo, `MissingExtra` for an engine that is
    not installed, otherwise as `judge` does.
    """
    candidates = [chain for name in passes for chain in _chains(name, trainable)]
    home = OnnxRuntime() if runtime is None else runtime
    others = [RUNTIMES.get(name) for name in dict.fromkeys(engines) if name != home.name]
    for engine in others:
        _require(engine, model)
    judgements: list[tuple[str, Judgement]] = []
    notes: dict[str, tuple[str, ...]] = {}
    best: tuple[Model, str, Judgement, str] | None = None
    seen = {model.digest: "the model given"}
    share = budget / max(1, (len(candidates) + bool(others)) * (1 + len(others)))

    def weigh(name: str, candidate: Model, engine: Runtime) -> None:
        nonlocal best
        found = judge(
            model, candidate, held, metric=metric, margin=margin, goal=goal, slices=slices, runtime=home,
            candidate_runtime=engine, seed=seed, budget=share, batch=batch, mixing=mixing,
        )  # fmt: skip
        told = name if engine is home else f"{name}@{engine.name}"
        judgements.append((told, found))
        if found.accepted and (best is None or _better(found, best[2], goal)):
            best = candidate, told, found, engine.name

    for engine in others:
        weigh(FLOAT, model, engine)
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
        for engine in (home, *others):
            weigh(name, candidate, engine)
    progress(1.0, "compressed")
    if best is None:
        return Outcome(model, tuple(judgements), FLOAT, notes, home.name)
    return Outcome(best[0], tuple(judgements), best[1], notes, best[3])


def compress_as(
    model: Model,
    plan: str,
    runtime: ChosenRuntime,
    calibration: Tensors,
    held: Held,
    *,
    metric: str,
    margin: float,
    goal: Goal = "speed",
    slices: Mapping[str, Array] | None = None,
    seed: int = 0,
    budget: float = 4.0,
    trainable: Trainable | None = None,
    progress: Progress = quiet,
) -> Outcome:
    """Applies one plan that was chosen before ("float": none), and keeps what it gives if the gate accepts it
    on that runtime; else the model given.

    Raises `MissingExtra` when the runtime is not installed, otherwise as `compress` does.
    """
    told = plan if runtime == DEFAULT_RUNTIME else f"{plan}@{runtime}"
    _require(runtime, model)
    progress(0.0, told)
    try:
        chains = [()] if plan == FLOAT else _chains(plan, trainable)
        candidate, notes = _apply(model, chains[0], calibration)
    except Exception as error:  # Whatever a pass raises keeps the model given.
        return Outcome(model, ((told, refusal(_told(error))),), FLOAT, {})
    progress(0.5, f"{told}: the gate")
    found = judge(
        model, candidate, held, metric=metric, margin=margin, goal=goal, slices=slices,
        candidate_runtime=runtime, seed=seed, budget=budget,
    )  # fmt: skip
    progress(1.0, "compressed")
    judged, every = ((told, found),), {told: notes}
    if not found.accepted:
        return Outcome(model, judged, FLOAT, every)
    return Outcome(candidate, judged, told, every, runtime.name, runtime.settings)


def _require(engine: Runtime, model: Model) -> None:
    """Raises `MissingExtra` for an engine that is not installed; one that refuses a graph is judged later."""
    try:
        engine.load(model).close()
    except ModelError:
        return


def _chains(name: str, trainable: Trainable | None) -> list[tuple[Pass, ...]]:
    """Every sequence of passes that a name stands for; a plan is one step of its own."""
    parts = [part.strip() for part in name.split(">")]
    if not all(part in PASSES.names() for part in parts):
        from modelyard.compress.plan import PlanPass, parse

        return [(PlanPass(parse(name), trainable),)]
    chains: list[tuple[Pass, ...]] = [()]
    for part in parts:
        alternatives = PASSES.get(part)
        chains = [(*chain, step) for chain in chains for step in alternatives]
    for chain in chains:
        require_order([(step.name, step) for step in chain])
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
