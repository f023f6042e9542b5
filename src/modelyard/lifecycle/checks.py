"""Runs the offline checks of the ML Test Score with the facts that the loop knows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any

import numpy.typing as npt

from modelyard.core.progress import Progress
from modelyard.core.spec import Tensors
from modelyard.lifecycle.feature_costs import feature_costs
from modelyard.lifecycle.git import git_facts
from modelyard.lifecycle.loop import Context
from modelyard.lifecycle.parts import contract_of, dataset_of, part_of
from modelyard.lifecycle.project import FILE
from modelyard.lifecycle.slices import group_values, slice_masks
from modelyard.measure.measurement import Verdict
from modelyard.model.model import Model
from modelyard.model.predict import predict
from modelyard.model.runtimes import RUNTIMES
from modelyard.score.checks.catalogue import CHECKS
from modelyard.score.context import CheckContext
from modelyard.train.baselines import baselines

OFFLINE = ("data.2", "data.3", "data.4", "model.1", "model.5", "model.6", "model.7")


def run_checks(
    context: Context,
    model: Model,
    answers: npt.NDArray[Any],
    requirements: Sequence[Verdict],
    progress: Progress,
) -> list[Verdict]:
    """The verdicts of every offline check, in the order of the score."""
    project, test = context.project, part_of(context, "test")
    session = RUNTIMES.get("onnxruntime").load(model)

    def answer(tensors: Tensors) -> npt.NDArray[Any]:
        return predict(session, tensors)

    progress(0.0, "simpler models")
    simpler = baselines(dataset_of(context), test.tensors, seed=project.train.seed)
    facts = CheckContext(
        contract=contract_of(context),
        labels=model.labels,
        tensors=test.tensors,
        targets=test.targets,
        predict=answer,
        metric=project.train.metric,
        margin=project.gate.simpler_margin,
        requirements=project.requirements,
        requirement_verdicts=tuple(requirements),
        slices=slice_masks(project, test.table),
        groups=group_values(project, test.table),
        baselines={item.name: item.answers for item in simpler},
        git=git_facts(project.root),
        specs=(FILE, project.data.contract, PurePosixPath(project.train.recipe.partition(":")[0]).as_posix()),
        allowed_sources=project.policy.allowed_sources or None,
        allowed_personal=project.policy.personal_features,
        owner=project.policy.owner,
        costs=feature_costs(contract_of(context), test),
        cost_budget=project.policy.feature_budget,
        seed=project.train.seed,
    )
    found = []
    for number, name in enumerate(OFFLINE):
        progress(0.3 + 0.7 * number / len(OFFLINE), name)
        found.append(CHECKS.get(name).run(facts))
    session.close()
    return found
