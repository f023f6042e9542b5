"""What earlier steps left in the store, as nouns again."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from modelyard.core.spec import Tensors
from modelyard.data.contract import Contract
from modelyard.data.profile import Profile
from modelyard.data.snapshot import Snapshot, load_part
from modelyard.data.tensors import features, targets
from modelyard.lifecycle.loop import Context
from modelyard.lifecycle.project import Project
from modelyard.model.chosen_runtime import HOME, ChosenRuntime
from modelyard.model.model import Model
from modelyard.model.reader import read_model
from modelyard.train.dataset import Dataset
from modelyard.train.recipe import Recipe


@dataclass(frozen=True, slots=True)
class Part:
    """One part of the snapshot: its table, the model's inputs and the targets."""

    table: Any
    tensors: Tensors
    targets: npt.NDArray[Any]


def contract_of(context: Context) -> Contract:
    """The contract that the data kept."""
    return Contract.from_json(_read(context, context.values("data")["contract_object"]))


def profile_of(context: Context) -> Profile:
    """The reference distribution: the training part's."""
    return Profile.from_json(_read(context, context.values("data")["profile_object"]))


def part_of(context: Context, name: str) -> Part:
    """The train, validation or test part."""
    key = f"part {name} {context.values('data')['snapshot']}"
    if key not in context.memo:
        snapshot = Snapshot.from_json(_read(context, context.values("data")["snapshot_object"]))
        table = load_part(snapshot, name, context.store.objects)
        contract = contract_of(context)
        context.memo[key] = Part(table, features(table, contract), targets(table, contract))
    made: Part = context.memo[key]
    return made


def dataset_of(context: Context) -> Dataset:
    """The train and validation parts as the trainer takes them."""
    train, validation = part_of(context, "train"), part_of(context, "validation")
    return Dataset(
        context.project.task,
        contract_of(context).labels,
        train.tensors,
        train.targets,
        validation.tensors,
        validation.targets,
    )


def recipe_of(project: Project, **changes: Any) -> Recipe:
    """The project's recipe."""
    options: dict[str, Any] = {
        "path": project.recipe_path,
        "function": project.train.recipe.partition(":")[2],
        "task": project.task,
        "metric": project.train.metric,
        "trials": project.train.trials,
        "budget": project.train.budget,
        "seed": project.train.seed,
    }
    return Recipe(**{**options, **changes})


def model_of(context: Context, step: str) -> Model:
    """The model that a step (train or compress) left, read strictly again."""
    onnx = context.store.objects.get(context.values(step)["model"])
    return read_model(onnx, task=context.project.task, labels=contract_of(context).labels)


def runtime_of(context: Context) -> ChosenRuntime:
    """What the compress step chose to run its model on: whatever is measured is measured on that."""
    values = context.values("compress")
    return ChosenRuntime(values.get("runtime", HOME), values.get("runtime_options", {}))


def _read(context: Context, digest: str) -> Any:
    return json.loads(context.store.objects.get(digest))
