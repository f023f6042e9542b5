"""The unit tests of a model's specification that every recipe can be put through (ML Test Score, infra.2)."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from modelyard.core.errors import ModelyardError, TrainError
from modelyard.core.progress import Progress, quiet
from modelyard.core.spec import Tensors
from modelyard.measure.measurement import Verdict
from modelyard.train.dataset import Dataset
from modelyard.train.estimator import again
from modelyard.train.fit import Fitted, build, fit, fit_built, fixed
from modelyard.train.recipe import Loaded, Recipe, load
from modelyard.train.seeding import derive
from modelyard.train.training import Training

_BATCH = 16
_STEPS = 150
_ROWS = 300

Test = Callable[["_Spec"], str]
"""Raises `_Failed`, or says in a few words what was seen."""


class _Failed(Exception):
    pass


class _Interrupted(BaseException):
    """A stop between two epochs, as a Ctrl-C would be."""


def spec_tests(
    recipe: Recipe, params: Mapping[str, Any], dataset: Dataset, *, progress: Progress = quiet
) -> Verdict:
    """The verdict `infra.2`: what any model specification must do, in a few seconds, on a few rows.

    Torch: overfits one batch of 16 rows, the loss falls, the outputs keep their shape and every row its
    answer in whatever batch it comes, saved weights answer bit for bit, an interrupted training resumes
    to the same weights. Estimators: fits a handful of rows better than a constant, the same shape test,
    a clone fitted again answers the same. The details list each test with what was seen.
    """
    loaded = load(recipe)
    torch = isinstance(build(loaded, fixed(params)), Training)
    spec = _Spec(loaded, dict(params), dataset.sample(_ROWS, seed=recipe.seed))
    tests = _TORCH if torch else _ESTIMATOR
    rows = []
    for index, (name, test) in enumerate(tests.items()):
        start = time.perf_counter()
        try:
            passed, seen = True, test(spec)
        except (_Failed, ModelyardError) as error:
            passed, seen = False, str(error)
        rows.append({"name": name, "passed": passed, "seen": seen, "seconds": time.perf_counter() - start})
        progress((index + 1) / len(tests), name)
    failed = [f"{row['name']} ({row['seen']})" for row in rows if not row["passed"]]
    return Verdict(
        "infra.2",
        not failed,
        f"all {len(rows)} tests of the specification pass" if not failed else "; ".join(failed),
        details={"kind": "torch" if torch else "estimator", "rows": spec.dataset.rows, "tests": rows},
    )


class _Spec:
    """One recipe under test, on a small data set."""

    def __init__(self, loaded: Loaded, params: dict[str, Any], dataset: Dataset) -> None:
        self.loaded = loaded
        self.params = params
        self.dataset = dataset
        self._fitted: Fitted | None = None

    def fitted(self) -> Fitted:
        """The recipe trained for two epochs, once for all tests that need a trained model."""
        if self._fitted is None:
            self._fitted = fit(replace(self.loaded.recipe, epochs=2), self.params, self.dataset)
        return self._fitted

    def built(self) -> Any:
        return build(self.loaded, fixed(self.params))


def _overfits_one_batch(spec: _Spec) -> str:
    import torch

    from modelyard.train.answer import Answer, columns_of
    from modelyard.train.loop import loss_of
    from modelyard.train.seeding import deterministic, seeded

    batch = spec.dataset.sample(_BATCH, seed=1)
    training = spec.built()
    answer = Answer(training.module, batch.train, batch.train_targets, len(batch.labels))
    columns, targets = columns_of(batch.train), answer.targets(batch.train_targets)
    seed = derive(spec.loaded.recipe.seed, 1)
    with deterministic(training.threads), seeded(seed, torch=True), spec.loaded.guard("one batch raised"):
        answer.train()
        answer.module(*answer.arguments(columns))
        optimizer = torch.optim.AdamW(answer.parameters(), lr=max(training.learning_rate, 1e-3))
        first = last = float("nan")
        for step in range(_STEPS):
            loss = loss_of(answer, training, answer.module(*answer.arguments(columns)), targets)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            last = loss.item()
            first = last if step == 0 else first
            if last < 0.02 * first:
                break
    if not last < 0.2 * first:
        raise _Failed(f"the loss on {len(targets)} rows only fell from {first:.4g} to {last:.4g}")
    return f"loss {first:.4g} to {last:.4g} in {step + 1} steps on {len(targets)} rows"


def _loss_falls(spec: _Spec) -> str:
    losses = [row["train_loss"] for row in spec.fitted().history]
    if not losses[-1] < losses[0]:
        raise _Failed(f"the training loss went from {losses[0]:.4g} to {losses[-1]:.4g}")
    return f"training loss {losses[0]:.4g} to {losses[-1]:.4g} in {len(losses)} epochs"


def _keeps_its_shape(spec: _Spec) -> str:
    fitted, width = spec.fitted(), max(1, len(spec.dataset.labels))
    rows = min(7, len(spec.dataset.validation_targets))
    together = fitted.predict(_rows(spec.dataset.validation, slice(0, rows)))
    if together.shape != (rows, width):
        raise _Failed(f"{rows} rows gave {list(together.shape)} instead of {[rows, width]}")
    if not np.all(np.isfinite(together)):
        raise _Failed("an answer is not finite")
    if spec.dataset.labels and not np.allclose(together.sum(axis=1), 1, atol=1e-4):
        raise _Failed("the probabilities of a row do not sum to 1")
    alone = np.concatenate(
        [fitted.predict(_rows(spec.dataset.validation, slice(row, row + 1))) for row in range(rows)]
    )
    scale = max(1.0, float(np.max(np.abs(together))))
    distance = float(np.max(np.abs(alone - together))) / scale
    if distance > 1e-4:
        raise _Failed(f"a row's answer depends on the rows beside it: differs by {distance:.3g}")
    return f"[n, {width}] for n = 1 and {rows}; rows do not touch each other"


def _saves_bit_for_bit(spec: _Spec) -> str:
    from safetensors.torch import load as parse
    from safetensors.torch import save

    fitted = spec.fitted()
    state = {name: value.detach().contiguous().clone() for name, value in fitted.trained.state_dict().items()}
    fresh = fit(replace(spec.loaded.recipe, epochs=1, seed=spec.loaded.recipe.seed + 1), spec.params,
                spec.dataset)  # fmt: skip
    fresh.trained.load_state_dict(parse(save(state)))
    if not np.array_equal(fresh.predict(spec.dataset.validation), fitted.predict(spec.dataset.validation)):
        raise _Failed("the saved weights answer otherwise in a new module")
    return f"{len(state)} tensors, equal answers"


def _survives_an_interrupt(spec: _Spec) -> str:
    recipe = replace(spec.loaded.recipe, epochs=2)

    def stop(fraction: float, text: str) -> None:
        if fraction < 1:
            raise _Interrupted

    with tempfile.TemporaryDirectory(prefix="modelyard-spec-") as name:
        try:
            fit(recipe, spec.params, spec.dataset, checkpoints=Path(name), progress=stop)
        except _Interrupted:
            pass
        else:
            raise _Failed("the training could not be interrupted")
        resumed = fit(recipe, spec.params, spec.dataset, checkpoints=Path(name))
    if resumed.weights_digest() != spec.fitted().weights_digest():
        raise _Failed("the resumed training ended in other weights")
    return "interrupted after epoch 1 of 2, resumed to the same weights"


def _fits_a_handful(spec: _Spec) -> str:
    batch = spec.dataset.sample(2 * _BATCH, seed=1)
    fitted = fit_built(spec.loaded, spec.built(), spec.params, batch)
    truth, answers = batch.train_targets, fitted.predict(batch.train).astype(np.float64)
    if batch.task == "regression":
        error = float(np.mean((answers[:, 0] - truth) ** 2))
        constant, name = float(np.var(truth)), "squared error"
    else:
        shares = np.bincount(truth, minlength=len(batch.labels)) / len(truth)
        error = float(-np.mean(np.log(np.clip(answers[np.arange(len(truth)), truth], 1e-12, 1))))
        constant, name = float(-np.mean(np.log(shares[truth]))), "log loss"
    if not error < constant:
        raise _Failed(f"{name} {error:.4g} on {len(truth)} rows; a constant has {constant:.4g}")
    return f"{name} {error:.4g} on {len(truth)} rows; a constant has {constant:.4g}"


def _clone_answers_the_same(spec: _Spec) -> str:
    fitted = spec.fitted()
    try:
        twin = again(fitted.trained)
    except (TypeError, RuntimeError) as error:
        raise TrainError(f"the estimator cannot be cloned: {error}") from error
    second = fit_built(spec.loaded, twin, spec.params, spec.dataset)
    one, two = fitted.predict(spec.dataset.validation), second.predict(spec.dataset.validation)
    if not np.array_equal(one, two):
        raise _Failed(f"a clone fitted again differs by {float(np.max(np.abs(one - two))):.3g}")
    return f"equal answers on {len(one)} rows"


def _rows(tensors: Tensors, rows: slice) -> Tensors:
    return {name: array[rows] for name, array in tensors.items()}


_TORCH: dict[str, Test] = {
    "overfits one batch": _overfits_one_batch,
    "loss falls": _loss_falls,
    "keeps its shape": _keeps_its_shape,
    "saves bit for bit": _saves_bit_for_bit,
    "survives an interrupt": _survives_an_interrupt,
}
_ESTIMATOR: dict[str, Test] = {
    "fits a handful of rows": _fits_a_handful,
    "keeps its shape": _keeps_its_shape,
    "a clone answers the same": _clone_answers_the_same,
}
