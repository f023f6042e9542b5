"""What a recipe builds for torch, untrained, and the graph of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modelyard.core.errors import CompressError, ModelyardError
from modelyard.core.spec import Tensors
from modelyard.model.convert import convert
from modelyard.model.model import Model
from modelyard.train.answer import Answer
from modelyard.train.dataset import Dataset
from modelyard.train.fit import build, fixed
from modelyard.train.recipe import Recipe, load
from modelyard.train.training import Training


def built_answer(recipe: Recipe, params: Mapping[str, Any], data: Dataset) -> Answer:
    """The module that the recipe builds with these parameters, from its seed, with the answer around it.

    Raises `CompressError` when the recipe fails or builds something other than torch.
    """
    try:
        built = build(load(recipe), fixed(params))
    except ModelyardError as error:
        raise CompressError("the recipe cannot be built", value=str(error)[:300]) from error
    if not isinstance(built, Training):
        raise CompressError("the recipe builds no torch module", value=type(built).__name__)
    return Answer(built.module, data.train, data.train_targets, len(data.labels))


def graph_of(answer: Answer, rows: Tensors, data: Dataset) -> Model:
    """The module's graph, proven on those rows; `CompressError` when it cannot be converted."""
    answer.eval()
    try:
        return convert(answer, rows, task=data.task, labels=data.labels).model
    except ModelyardError as error:
        raise CompressError("the trained module does not convert", value=str(error)[:300]) from error
