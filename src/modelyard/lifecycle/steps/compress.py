"""Try to make the model smaller and faster; keep only what paired evidence supports."""

from __future__ import annotations

from typing import Any

from modelyard.compress.compress import compress
from modelyard.compress.gate import Held, Judgement
from modelyard.core.progress import Progress
from modelyard.lifecycle.loop import Context
from modelyard.lifecycle.parts import model_of, part_of
from modelyard.lifecycle.show import show_interval
from modelyard.lifecycle.slices import slice_masks
from modelyard.lifecycle.step import Outcome
from modelyard.measure.measurement import Measurement, Verdict

_CALIBRATION = 256


def run(context: Context, progress: Progress) -> Outcome:
    project, options = context.project, context.project.compress
    original = model_of(context, "train")
    # The validation part decides here; the test part stays unseen until the gate.
    measured = Measurement.from_json(context.values("train")["quality"])
    train, held = part_of(context, "train"), part_of(context, "validation")
    outcome = compress(
        original,
        options.passes,
        {name: values[:_CALIBRATION] for name, values in train.tensors.items()},
        Held(held.tensors, held.targets),
        metric=project.train.metric,
        margin=project.margin(options.margin).of(measured.value),
        goal="size" if options.goal == "size" else "speed",
        slices=slice_masks(project, held.table),
        seed=project.train.seed,
        progress=progress,
    )
    values: dict[str, Any] = {
        "model": context.store.objects.put(outcome.model.onnx),
        "kept": outcome.kept,
        "notes": {name: list(notes) for name, notes in outcome.notes.items()},
        "judgements": {name: _as_json(judgement) for name, judgement in outcome.judgements},
    }
    verdicts = tuple((original.digest, _verdict(name, judgement)) for name, judgement in outcome.judgements)
    return Outcome(values, _headline(outcome.kept, dict(outcome.judgements)), verdicts)


def _headline(kept: str, judgements: dict[str, Judgement]) -> str:
    if kept in judgements:
        judgement = judgements[kept]
        speed = f"{judgement.speedup.value:.2f}x faster {show_interval(judgement.speedup)}"
        return f"{kept} · {judgement.size_ratio:.1f}x smaller · {speed}"
    if not judgements:
        return "kept as trained · no pass asked for"
    name, judgement = next(iter(judgements.items()))
    more = f" (and {len(judgements) - 1} more refused)" if len(judgements) > 1 else ""
    return f"kept as trained · {name} refused: {judgement.why}{more}"


def _verdict(name: str, judgement: Judgement) -> Verdict:
    measurements = tuple(item for verdict in judgement.verdicts for item in verdict.measurements)
    return Verdict(
        f"compress.{name}",
        judgement.accepted,
        judgement.why,
        measurements,
        details={"verdicts": [verdict.to_json() for verdict in judgement.verdicts]},
    )


def _as_json(judgement: Judgement) -> dict[str, Any]:
    return {
        "accepted": judgement.accepted,
        "why": judgement.why,
        "speedup": judgement.speedup.to_json(),
        "size_ratio": judgement.size_ratio,
    }
