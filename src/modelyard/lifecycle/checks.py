"""Runs the offline checks of the ML Test Score with the facts that the loop knows."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import PurePosixPath

from modelyard.core.progress import Progress
from modelyard.lifecycle.feature_costs import feature_costs
from modelyard.lifecycle.git import git_facts
from modelyard.lifecycle.loop import Context
from modelyard.lifecycle.parts import contract_of, dataset_of, part_of, runtime_of
from modelyard.lifecycle.project import FILE
from modelyard.lifecycle.slices import group_values, slice_masks
from modelyard.measure.measurement import Verdict
from modelyard.model.answer import opened
from modelyard.model.model import Model
from modelyard.model.predict import predict
from modelyard.model.runtime import Session
from modelyard.score.checks.catalogue import CHECKS
from modelyard.score.context import CheckContext
from modelyard.train.baselines import baselines

OFFLINE = ("data.2", "data.3", "data.4", "model.1", "model.5", "model.6", "model.7")


def run_checks(
    context: Context,
    model: Model,
    requirements: Sequence[Verdict],
    progress: Progress,
) -> list[Verdict]:
    """The verdicts of every offline check, in the order of the score."""
    progress(0.0, "simpler models")
    found = []
    with opened(model, runtime_of(context)) as session:
        facts = _facts(context, model, session, requirements)
        for number, name in enumerate(OFFLINE):
            progress(0.3 + 0.7 * number / len(OFFLINE), name)
            found.append(CHECKS.get(name).run(facts))
    return found


def _facts(context: Context, model: Model, session: Session, requirements: Sequence[Verdict]) -> CheckContext:
    project, test = context.project, part_of(context, "test")
    simpler = baselines(dataset_of(context), test.tensors, seed=project.train.seed)
    return CheckContext(
        contract=contract_of(context),
        labels=model.labels,
        tensors=test.tensors,
        targets=test.targets,
        predict=partial(predict, session),
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
