"""Every metric against scikit-learn, and its weighted form against repeated rows."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from modelyard.core.errors import ModelyardError
from modelyard.measure.metric import COST_METRICS, METRICS, Array, metric

CLASSIFICATION = [name for name, item in METRICS.items() if item.task == "classification"]
REGRESSION = [name for name, item in METRICS.items() if item.task == "regression"]


def reference(name: str, truth: Array, answer: Array) -> float:
    found, labels = answer.argmax(axis=1) if answer.ndim == 2 else answer, np.arange(answer.shape[-1])
    table = {
        "accuracy": lambda: sk.accuracy_score(truth, found),
        "balanced_accuracy": lambda: sk.balanced_accuracy_score(truth, found),
        "f1_macro": lambda: sk.f1_score(truth, found, average="macro", zero_division=0),
        "precision_macro": lambda: sk.precision_score(truth, found, average="macro", zero_division=0),
        "recall_macro": lambda: sk.recall_score(truth, found, average="macro", zero_division=0),
        "log_loss": lambda: sk.log_loss(truth, answer, labels=labels),
        "brier": lambda: sk.brier_score_loss(truth, answer, labels=labels),
        "roc_auc": lambda: (
            sk.roc_auc_score(truth, answer[:, 1])
            if answer.shape[1] == 2
            else sk.roc_auc_score(truth, answer, multi_class="ovr", average="macro")
        ),
        "mae": lambda: sk.mean_absolute_error(truth, answer),
        "rmse": lambda: sk.root_mean_squared_error(truth, answer),
        "r2": lambda: sk.r2_score(truth, answer),
        "mape": lambda: sk.mean_absolute_percentage_error(truth, answer),
        "median_absolute_error": lambda: sk.median_absolute_error(truth, answer),
        "max_error": lambda: sk.max_error(truth, answer),
    }
    with warnings.catch_warnings():
        # balanced_accuracy_score warns of classes that only the answers hold; so do we mean it.
        warnings.simplefilter("ignore")
        return float(table[name]())


def classified(rng: np.random.Generator, rows: int, classes: int, ties: bool) -> tuple[Array, Array]:
    answer = rng.dirichlet(np.ones(classes), size=rows)
    if ties:
        answer = rng.integers(1, 4, size=(rows, classes)).astype(float)
        answer /= answer.sum(axis=1, keepdims=True)
    truth = np.concatenate([np.arange(classes), rng.integers(0, classes, size=rows - classes)])
    return truth, answer


@pytest.mark.parametrize("name", [n for n in CLASSIFICATION if n != "expected_calibration_error"])
@pytest.mark.parametrize("classes", [2, 3, 7])
@pytest.mark.parametrize("ties", [False, True])
def test_classification_agrees_with_scikit_learn(name: str, classes: int, ties: bool) -> None:
    truth, answer = classified(np.random.default_rng(classes), 80, classes, ties)
    assert metric(name).compute(truth, answer) == pytest.approx(reference(name, truth, answer), abs=1e-12)


@pytest.mark.parametrize("name", REGRESSION)
@pytest.mark.parametrize("rows", [5, 6, 200])
def test_regression_agrees_with_scikit_learn(name: str, rows: int) -> None:
    rng = np.random.default_rng(rows)
    truth = rng.normal(100, 3, rows)
    answer = truth + rng.standard_t(2, rows)
    assert metric(name).compute(truth, answer[:, None]) == pytest.approx(reference(name, truth, answer))


def test_calibration_error_by_hand() -> None:
    # Two bins are filled: 0.95 sure and half right, 0.55 sure and always right.
    answer = np.array([[0.95, 0.05]] * 4 + [[0.55, 0.45]] * 2)
    truth = np.array([0, 0, 1, 1, 0, 0])
    expected = (4 * abs(0.5 - 0.95) + 2 * abs(1 - 0.55)) / 6
    assert metric("expected_calibration_error").compute(truth, answer) == pytest.approx(expected)


@pytest.mark.parametrize("name", list(METRICS))
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), rows=st.integers(4, 30))
def test_weights_mean_repeated_rows(name: str, seed: int, rows: int) -> None:
    rng = np.random.default_rng(seed)
    found = metric(name)
    if found.task == "classification":
        truth, answer = classified(rng, rows, 3, ties=bool(seed % 2))
    else:
        truth, answer = rng.normal(5, 1, rows), rng.normal(5, 1, rows).round(1)
    weights = rng.integers(0, 4, size=(3, rows)).astype(float)
    weights[:, 0] += 1
    assert found.resample is not None
    weighted = found.resample(*found.aligned(truth, answer), weights)
    for row, value in zip(weights.astype(int), weighted, strict=True):
        repeated = found.compute(np.repeat(truth, row), np.repeat(answer, row, axis=0))
        assert value == pytest.approx(repeated, rel=1e-9, abs=1e-9, nan_ok=True)


def test_each_metric_says_which_direction_is_better() -> None:
    higher = {name for name, item in (METRICS | COST_METRICS).items() if item.better == "higher"}
    assert higher == {
        "accuracy", "balanced_accuracy", "f1_macro", "precision_macro", "recall_macro", "roc_auc", "r2",
        "throughput",
    }  # fmt: skip


def test_an_unknown_metric_names_the_nearest() -> None:
    with pytest.raises(ModelyardError, match="did you mean 'accuracy'"):
        metric("acuracy")


def test_a_cost_has_no_quality() -> None:
    with pytest.raises(ValueError, match="is a cost"):
        metric("latency_p50").compute(np.zeros(1), np.zeros(1))


@pytest.mark.parametrize(
    ("name", "truth", "answer"),
    [
        ("accuracy", np.zeros(3, int), np.zeros((2, 2))),
        ("accuracy", np.zeros(3, int), np.zeros(3)),
        ("accuracy", np.zeros(3), np.zeros((3, 2))),
        ("mae", np.zeros(3), np.zeros((3, 2))),
        ("mae", np.zeros((3, 2)), np.zeros(3)),
    ],
)
def test_arrays_that_do_not_fit_are_refused(name: str, truth: Array, answer: Array) -> None:
    with pytest.raises(ValueError, match="needs"):
        metric(name).compute(truth, answer)
