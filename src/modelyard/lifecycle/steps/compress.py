"""Try to make the model smaller and faster; keep only what paired evidence supports."""

from __future__ import annotations

from typing import Any

from modelyard.compress.compress import Outcome as Compressed
from modelyard.compress.compress import compress, compress_as
from modelyard.compress.gate import Held, Judgement
from modelyard.compress.search.bench import require_engines
from modelyard.core.progress import Progress, part
from modelyard.lifecycle.loop import Context
from modelyard.lifecycle.parts import model_of, part_of
from modelyard.lifecycle.searched_plan import SearchedPlan, searched_plan
from modelyard.lifecycle.searching import engines_of, search_model, trainable_of
from modelyard.lifecycle.show import show_interval
from modelyard.lifecycle.slices import slice_masks
from modelyard.lifecycle.step import Outcome
from modelyard.measure.measurement import Measurement, Verdict
from modelyard.model.chosen_runtime import ChosenRuntime
from modelyard.model.model import Model

_CALIBRATION = 256


def parts(context: Context) -> dict[str, str]:
    """The slices, and the plan that a search chose, where there is one that is used."""
    found = {"[[slice]]": repr(context.project.slices)}
    plan = searched_plan(context)
    return {**found, "the searched plan": plan.digest} if plan is not None and plan.gains else found


def run(context: Context, progress: Progress) -> Outcome:
    original, plan = model_of(context, "train"), searched_plan(context)
    budget = context.project.compress.search
    if plan is None and not isinstance(budget, bool):
        engines = engines_of(context.project.compress.targets)
        require_engines(engines)
        search_model(context, engines, budget=budget, progress=part(progress, 0.0, 0.8))
        plan = searched_plan(context)
        progress = part(progress, 0.8, 1.0)
    used = plan if plan is not None and plan.gains else None
    outcome = _compressed(context, original, used, progress)
    told = "" if used is None else used.told(original.digest)
    values: dict[str, Any] = {
        "model": context.store.objects.put(outcome.model.onnx),
        "kept": outcome.kept,
        "runtime": outcome.runtime,
        "runtime_options": dict(outcome.settings),
        "searched": None if used is None else used.to_json(),
        "notes": {name: list(notes) for name, notes in outcome.notes.items()},
        "judgements": {name: _as_json(judgement) for name, judgement in outcome.judgements},
    }
    verdicts = tuple(
        (original.digest, _verdict(name, judgement, told)) for name, judgement in outcome.judgements
    )
    return Outcome(values, _headline(outcome, told), verdicts)


def _compressed(
    context: Context, original: Model, plan: SearchedPlan | None, progress: Progress
) -> Compressed:
    """The searched plan on this model, or the passes of the project file, as the gate judges them."""
    project, options = context.project, context.project.compress
    # The validation part decides here; the test part stays unseen until the gate.
    measured = Measurement.from_json(context.values("train")["quality"])
    train, held = part_of(context, "train"), part_of(context, "validation")
    calibration = {name: values[:_CALIBRATION] for name, values in train.tensors.items()}
    bar: dict[str, Any] = {
        "metric": project.train.metric,
        "margin": project.margin(options.margin).of(measured.value),
        "goal": "size" if options.goal == "size" else "speed",
        "slices": slice_masks(project, held.table),
        "seed": project.train.seed,
        "progress": progress,
    }
    rows = Held(held.tensors, held.targets)
    if plan is None:
        return compress(original, options.passes, calibration, rows, **bar)
    return compress_as(
        original, plan.plan, plan.runtime, calibration, rows, trainable=trainable_of(context), **bar
    )


def _headline(outcome: Compressed, told: str) -> str:
    kept, judgements = outcome.kept, dict(outcome.judgements)
    after = f" · {told}" if told else ""
    if kept in judgements:
        judgement = judgements[kept]
        speed = f"{judgement.speedup.value:.2f}x faster {show_interval(judgement.speedup)}"
        where = ChosenRuntime(outcome.runtime, outcome.settings)
        on = f" · on {where}" if str(where) not in kept and str(where) != "onnxruntime" else ""
        return f"{kept}{on} · {judgement.size_ratio:.1f}x smaller · {speed}{after}"
    if not judgements:
        return "kept as trained · no pass asked for"
    name, judgement = next(iter(judgements.items()))
    more = f" (and {len(judgements) - 1} more refused)" if len(judgements) > 1 else ""
    return f"kept as trained · {name} refused: {judgement.why}{more}{after}"


def _verdict(name: str, judgement: Judgement, told: str) -> Verdict:
    measurements = tuple(item for verdict in judgement.verdicts for item in verdict.measurements)
    details: dict[str, Any] = {"verdicts": [verdict.to_json() for verdict in judgement.verdicts]}
    return Verdict(
        f"compress.{name}",
        judgement.accepted,
        judgement.why,
        measurements,
        details={**details, "plan": told} if told else details,
    )


def _as_json(judgement: Judgement) -> dict[str, Any]:
    return {
        "accepted": judgement.accepted,
        "why": judgement.why,
        "speedup": judgement.speedup.to_json(),
        "size_ratio": judgement.size_ratio,
    }
