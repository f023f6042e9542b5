"""What a recipe returned, checked: an estimator, or a torch module with how to train it."""

from __future__ import annotations

import inspect
import sys
from dataclasses import replace
from typing import Any

from modelyard.core.errors import TrainError
from modelyard.train.recipe import Recipe
from modelyard.train.training import Training

_RULE = "an estimator with fit and predict, a torch.nn.Module, or a modelyard.Training"


def check_built(built: object, recipe: Recipe) -> Any:
    """The estimator, or the `Training` (a bare module gets the defaults) with the recipe's overrides.

    Raises `TrainError` for anything else, and for an estimator of the wrong task.
    """
    if isinstance(built, Training):
        if not is_module(built.module):
            raise _wrong(recipe, built.module, "Training.module is no torch module")
        return _checked(replace(built, **_overrides(recipe)), recipe)
    if is_module(built):
        return replace(Training(built), **_overrides(recipe))
    if built is None:
        raise _wrong(recipe, None, "it returned nothing", fix="end the function with a return")
    if inspect.isclass(built):
        raise _wrong(recipe, built, "it returned a class", fix=f"return {built.__name__}(...), an object")
    if not (callable(getattr(built, "fit", None)) and callable(getattr(built, "predict", None))):
        raise _wrong(recipe, built, "it returned what cannot be trained")
    _check_task(built, recipe)
    return built


def is_module(value: object) -> bool:
    """Whether a value is a torch module; torch is not imported for the question."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.nn.Module)


def _overrides(recipe: Recipe) -> dict[str, Any]:
    chosen = {"epochs": recipe.epochs, "batch_size": recipe.batch_size}
    return {name: value for name, value in chosen.items() if value is not None}


def _checked(training: Training, recipe: Recipe) -> Training:
    for name in ("epochs", "batch_size", "learning_rate", "threads"):
        value = getattr(training, name)
        if not value > 0:
            raise _wrong(recipe, f"{name}={value!r}", f"Training.{name} is wrong", rule="above 0")
    for name, known in (("optimizer", ("adamw", "sgd")), ("schedule", ("onecycle", "cosine", "constant"))):
        if getattr(training, name) not in known:
            raise _wrong(
                recipe, getattr(training, name), f"Training.{name} is unknown", rule=f"one of {known}"
            )
    return training


def _check_task(estimator: object, recipe: Recipe) -> None:
    from sklearn.base import is_classifier, is_regressor

    classifies = is_classifier(estimator)
    if classifies == is_regressor(estimator):
        return
    if classifies != (recipe.task == "classification"):
        kind = "classifier" if classifies else "regressor"
        raise _wrong(recipe, estimator, f"it returned a {kind}", rule=f"the project's task is {recipe.task}")
    if classifies and not hasattr(estimator, "predict_proba"):
        raise _wrong(
            recipe,
            estimator,
            "the classifier gives no probabilities",
            rule="predict_proba",
            fix="wrap it in sklearn.calibration.CalibratedClassifierCV",
        )


def _wrong(
    recipe: Recipe, value: object, what: str, *, rule: str = _RULE, fix: str = "correct the recipe"
) -> TrainError:
    return TrainError(
        f"{recipe.function}(trial): {what}", value=value, rule=rule, fix=fix, where=str(recipe.path)
    )
