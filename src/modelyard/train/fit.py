"""The one function that trains what a recipe builds, for tuning and for the final fit alike."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from modelyard.core.digest import Digest, digest_json, finite
from modelyard.core.errors import TrainError
from modelyard.core.progress import Progress, quiet
from modelyard.core.spec import Tensors
from modelyard.measure.metric import Metric, metric
from modelyard.train.built import check_built
from modelyard.train.dataset import Dataset, Task
from modelyard.train.recipe import Loaded, Recipe, load
from modelyard.train.seeding import derive, deterministic, seeded
from modelyard.train.training import Training

OnEpoch = Callable[[int, float], None]


@dataclass(frozen=True, slots=True)
class Fitted:
    """A trained estimator or torch module (`trained`), and how it came about.

    A torch module in `trained` is the `Answer` around the user's module: `forward(*columns)` takes the
    feature columns in order and answers probabilities or real units. `history` has one mapping an epoch
    (torch only), `code` is the digest of the recipe's files, `notes` is what the libraries warned of.
    """

    trained: Any
    kind: Literal["estimator", "torch"]
    task: Task
    labels: tuple[str, ...]
    features: tuple[str, ...]
    params: Mapping[str, Any]
    history: tuple[Mapping[str, float], ...]
    seconds: float
    code: Digest
    notes: tuple[str, ...] = ()
    threads: int = 1

    def predict(self, tensors: Tensors) -> npt.NDArray[Any]:
        """Probabilities `[N, K]` in the order of `labels`, or predictions `[N, 1]`; float32."""
        chosen = {name: tensors[name] for name in self.features}
        if self.kind == "estimator":
            from modelyard.train import estimator

            return estimator.answer(self.trained, chosen, len(self.labels))
        from modelyard.train import answer

        with deterministic(self.threads):
            return answer.predict(self.trained, answer.columns_of(chosen))

    def weights_digest(self) -> Digest | None:
        """The digest of all weights and buffers of a torch module; `None` for an estimator."""
        if self.kind == "estimator":
            return None
        state = self.trained.state_dict()
        return digest_json(
            {name: [list(value.shape), value.numpy().tobytes().hex()] for name, value in state.items()}
        )


def fit(
    recipe: Recipe,
    params: Mapping[str, Any],
    dataset: Dataset,
    *,
    checkpoints: Path | None = None,
    progress: Progress = quiet,
) -> Fitted:
    """Builds the recipe with these parameters and trains it on the training part.

    The same recipe, parameters, data and seed give the same answers, and for torch the same weights, bit
    for bit. With `checkpoints` (a folder) an interrupted training of a torch module is continued by the
    next call; a checkpoint of anything else is ignored. Raises `TrainError` for whatever is wrong with
    the recipe, what it built, or how its training went.
    """
    return fit_loaded(load(recipe), fixed(params), dataset, checkpoints=checkpoints, progress=progress)


def fixed(params: Mapping[str, Any]) -> Any:
    """A trial that gives the recipe these values."""
    import optuna

    return optuna.trial.FixedTrial(dict(params))


def fit_loaded(
    loaded: Loaded,
    trial: Any,
    dataset: Dataset,
    *,
    checkpoints: Path | None = None,
    progress: Progress = quiet,
) -> Fitted:
    """As `fit`, for a recipe that is loaded already."""
    built = build(loaded, trial)
    return fit_built(loaded, built, trial.params, dataset, checkpoints=checkpoints, progress=progress)


def fit_built(
    loaded: Loaded,
    built: Any,
    params: Mapping[str, Any],
    dataset: Dataset,
    *,
    checkpoints: Path | None = None,
    progress: Progress = quiet,
    on_epoch: OnEpoch | None = None,
) -> Fitted:
    """Trains what `build` returned; `on_epoch` may raise to give up (torch only)."""
    start = time.perf_counter()
    recipe = loaded.recipe
    judged = judge(recipe)
    history: tuple[Mapping[str, float], ...] = ()
    notes: tuple[str, ...] = ()
    trained: Any = built
    if isinstance(built, Training):
        from modelyard.train.answer import Answer
        from modelyard.train.loop import Surroundings, bare, train

        trained = Answer(built.module, dataset.train, dataset.train_targets, len(dataset.labels))
        identity = _identity(loaded, params, dataset, bare(built)) if checkpoints else ""
        around = Surroundings(judged, recipe.seed, loaded.guard, identity, checkpoints, progress, on_epoch)
        history = train(trained, built, dataset, around)
    else:
        from modelyard.train.estimator import fit_estimator, prepare

        with loaded.guard("fitting raised"), seeded(recipe.seed):
            notes = fit_estimator(prepare(trained, recipe.seed), dataset)
        progress(1.0, "fitted")
    return Fitted(
        trained=trained,
        kind="torch" if isinstance(built, Training) else "estimator",
        task=dataset.task,
        labels=dataset.labels,
        features=dataset.features,
        params=dict(params),
        history=history,
        seconds=time.perf_counter() - start,
        code=loaded.code,
        notes=notes,
        threads=built.threads if isinstance(built, Training) else 1,
    )


def build(loaded: Loaded, trial: Any) -> Any:
    """Calls the recipe under its seed; an estimator, or a `Training`, checked."""
    with (
        seeded(derive(loaded.recipe.seed, 0), torch=loaded.torch),
        warnings.catch_warnings(),
    ):
        # Parameters outside the range are the study's business, not the user's.
        warnings.filterwarnings("ignore", module="optuna")
        return check_built(loaded.build(trial), loaded.recipe)


def judge(recipe: Recipe) -> Metric:
    """The recipe's metric; raises `TrainError` when it is unknown or of the other task."""
    found = metric(recipe.metric)
    if found.task != recipe.task:
        raise TrainError(
            f"the metric {recipe.metric!r} does not judge {recipe.task}",
            value=found.task,
            rule=f"a metric for {recipe.task}",
            fix="choose another metric in modelyard.toml",
        )
    return found


def score(fitted: Fitted, dataset: Dataset, judged: Metric) -> float:
    """The metric on the validation part; NaN where it does not exist."""
    return judged.compute(dataset.validation_targets, np.asarray(fitted.predict(dataset.validation)))


def _identity(
    loaded: Loaded, params: Mapping[str, Any], dataset: Dataset, training: Mapping[str, Any]
) -> Digest:
    import torch

    return digest_json(
        finite(
            {
                "code": loaded.code,
                "params": {name: repr(value) for name, value in params.items()},
                "data": dataset.digest(),
                "seed": loaded.recipe.seed,
                "metric": loaded.recipe.metric,
                "training": dict(training),
                "torch": str(torch.__version__),
            }
        )
    )
