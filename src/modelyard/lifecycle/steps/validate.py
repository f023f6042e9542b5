"""Hold the model against every requirement, the champion, simpler models and its own specification."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from modelyard.core.progress import Progress, part
from modelyard.lifecycle.champion import Champion, champion_of
from modelyard.lifecycle.checks import run_checks
from modelyard.lifecycle.costs import model_costs
from modelyard.lifecycle.loop import Context
from modelyard.lifecycle.parts import dataset_of, model_of, part_of, recipe_of, runtime_of
from modelyard.lifecycle.reach import project_code
from modelyard.lifecycle.rehearsal import rehearse
from modelyard.lifecycle.show import show_measurement
from modelyard.lifecycle.slices import slice_masks
from modelyard.lifecycle.step import Outcome
from modelyard.measure.compare import non_inferior
from modelyard.measure.measurement import Measurement, Verdict
from modelyard.measure.metric import metric
from modelyard.measure.quality import quality
from modelyard.measure.requirement import Requirement
from modelyard.model.answer import answer
from modelyard.release.gate import gate
from modelyard.release.registry import Registry
from modelyard.train.reproduce import reproduce
from modelyard.train.spec_tests import spec_tests


def parts(context: Context) -> dict[str, str]:
    """The user's files, the requirements and the slices.

    The champion is not among them: a promotion changes it, and must not make its own evidence stale.
    """
    project = context.project
    return {
        **project_code(project.recipe_path),
        "[[requirement]]": repr(project.requirements),
        "[[slice]]": repr(project.slices),
    }


def run(context: Context, progress: Progress) -> Outcome:
    project, model, runtime = context.project, model_of(context, "compress"), runtime_of(context)
    test = part_of(context, "test")
    answers = answer(model, test.tensors, runtime)
    masks = slice_masks(project, test.table)
    progress(0.05, "requirements")
    costs = model_costs(model, test.tensors, runtime)
    offline = [item for item in project.requirements if item.where != "service"]
    judged = [_require(item, costs, test.targets, answers, masks) for item in offline]
    measured = quality(project.train.metric, test.targets, answers, of="test")
    champion = champion_of(context)
    verdict = gate(
        offline,
        judged,
        champion=_against(context, champion, test.targets, answers, measured.value),
        first=champion is None,
        quality=measured,
        history=_history(context),
        slide_margin=project.margin(project.gate.slide).of(measured.value),
        better=metric(project.train.metric).better,
    )
    found: list[tuple[str, Verdict]] = [(model.digest, item) for item in judged]
    found.append((model.digest, Verdict("quality", True, show_measurement(measured), (measured,))))
    found.append((model.digest, verdict))
    checked = run_checks(context, model, judged, part(progress, 0.1, 0.4))
    found += [(model.digest, item) for item in checked]
    found += _specification(context, part(progress, 0.4, 0.8))
    found.append((context.values("train")["code"], rehearse(context, part(progress, 0.8, 1.0))))
    passed = sum(item.passed for item in judged)
    headline = f"{passed} of {len(judged)} requirements · {show_measurement(measured)}"
    values: dict[str, Any] = {
        "requirements": [item.to_json() for item in judged],
        "quality": measured.to_json(),
        "costs": {name: item.to_json() for name, item in costs.items()},
        "gate": verdict.to_json(),
        "model": model.digest,
    }
    return Outcome(values, headline, tuple(found), stops="" if verdict.passed else f"the gate: {verdict.why}")


def _require(
    requirement: Requirement,
    costs: Mapping[str, Measurement],
    truth: npt.NDArray[Any],
    answers: npt.NDArray[Any],
    masks: Mapping[str, npt.NDArray[np.bool_]],
) -> Verdict:
    if requirement.metric in costs:
        return requirement.judge(costs[requirement.metric])
    mask = masks[requirement.slice] if requirement.slice else np.ones(len(truth), dtype=np.bool_)
    place = requirement.slice or "test"
    return requirement.judge(quality(requirement.metric, truth[mask], answers[mask], of=place))


def _against(
    context: Context,
    champion: Champion | None,
    truth: npt.NDArray[Any],
    answers: npt.NDArray[Any],
    value: float,
) -> Verdict | None:
    if champion is None:
        return None
    theirs = champion.answer(part_of(context, "test").table)
    if theirs is None:
        return Verdict("gate.champion", True, "the champion takes other inputs: only requirements compare")
    project = context.project
    margin = project.margin(project.gate.margin).of(value)
    return non_inferior(project.train.metric, truth, theirs, answers, margin, of="champion")


def _history(context: Context) -> list[Measurement]:
    """The quality of the releases so far, oldest first, as each was measured when it was validated."""
    ledger, name = context.store.ledger, context.project.train.metric
    registry = Registry(context.store, ())
    models = [release.lineage["model"] for release in registry.list(context.project.name)]
    entries = {entry.subject: entry for entry in ledger.entries(claim="quality")}
    known = [Verdict.from_json(entries[model].body).measurements[0] for model in models if model in entries]
    return [measured for measured in known if measured.metric == name]


def _specification(context: Context, progress: Progress) -> list[tuple[str, Verdict]]:
    code, params = context.values("train")["code"], context.values("train")["params"]
    recipe, dataset = recipe_of(context.project), dataset_of(context)
    again = reproduce(recipe, params, dataset, progress=part(progress, 0.0, 0.5))
    specs = spec_tests(recipe, params, dataset, progress=part(progress, 0.5, 1.0))
    return [(code, again), (code, specs)]
