from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from modelyard.core.errors import TrainError
from modelyard.train.dataset import Dataset
from modelyard.train.fit import fit
from modelyard.train.frame import frame
from modelyard.train.recipe import Recipe

Make = Callable[..., Recipe]
FOREST = """
    from sklearn.ensemble import RandomForestClassifier

    def build(trial):
        return RandomForestClassifier(n_estimators=5)
"""


def test_a_pipeline_gets_the_columns_by_name(ridge: Recipe, prices: Dataset) -> None:
    fitted = fit(ridge, {"alpha": 0.01}, prices)
    answers = fitted.predict(prices.validation)
    assert answers.shape == (40, 1)
    assert np.abs(answers[:, 0] - prices.validation_targets).max() < 100
    assert fitted.kind == "estimator"
    assert fitted.params == {"alpha": 0.01}
    assert fitted.weights_digest() is None


def test_chance_is_closed_by_the_seed(recipe_of: Make, points: Dataset) -> None:
    recipe = recipe_of(FOREST)
    one, two = (fit(recipe, {}, points).predict(points.validation) for _ in range(2))
    other = fit(replace(recipe, seed=1), {}, points).predict(points.validation)
    assert np.array_equal(one, two)
    assert not np.array_equal(one, other)


def test_the_global_generators_are_left_alone(recipe_of: Make, points: Dataset) -> None:
    np.random.seed(5)
    want = np.random.random()
    np.random.seed(5)
    fit(recipe_of(FOREST), {}, points)
    assert np.random.random() == want


def test_a_class_that_training_lacks_has_probability_zero(recipe_of: Make, points: Dataset) -> None:
    keep = points.train_targets != 1
    without = replace(
        points,
        train={name: array[keep] for name, array in points.train.items()},
        train_targets=points.train_targets[keep],
    )
    answers = fit(recipe_of(FOREST), {}, without).predict(points.validation)
    assert answers.shape == (40, 3)
    assert answers[:, 1].max() == 0
    assert np.allclose(answers.sum(axis=1), 1)


def test_lightgbm_is_quiet_and_the_same_twice(
    recipe_of: Make, points: Dataset, capfd: pytest.CaptureFixture[str]
) -> None:
    recipe = recipe_of(
        "from lightgbm import LGBMClassifier\n"
        "def build(trial):\n"
        "    return LGBMClassifier(n_estimators=5, subsample=0.5, subsample_freq=1, min_child_samples=5)\n"
    )
    one, two = (fit(recipe, {}, points) for _ in range(2))
    assert np.array_equal(one.predict(points.validation), two.predict(points.validation))
    assert one.trained.get_params()["n_jobs"] == 1
    assert capfd.readouterr().out == ""


def test_a_lone_tensor_column_becomes_a_matrix(recipe_of: Make) -> None:
    random = np.random.default_rng(0)
    images = random.random((30, 1, 4, 4), dtype=np.float32)
    targets = (images.mean(axis=(1, 2, 3)) > 0.5).astype(np.int64)
    data = Dataset(
        "classification", ("dark", "light"), {"image": images}, targets, {"image": images}, targets
    )
    assert fit(recipe_of(FOREST), {}, data).predict({"image": images[:3]}).shape == (3, 2)
    with pytest.raises(TrainError, match="tensor columns beside others"):
        frame({"image": images, "a": np.zeros((30, 1), np.float32)})


def test_what_a_library_warned_of_is_noted(recipe_of: Make, points: Dataset) -> None:
    recipe = recipe_of(
        "from sklearn.linear_model import LogisticRegression\n"
        "def build(trial):\n    return LogisticRegression(max_iter=1)\n"
    )
    assert "ConvergenceWarning" in fit(recipe, {}, points).notes[0]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("return None", "returned nothing"),
        ("return 3", "what cannot be trained: got 3"),
        ("from sklearn.linear_model import Ridge\n    return Ridge", "returned a class"),
        ("from sklearn.linear_model import Ridge\n    return Ridge()", "returned a regressor"),
        ("from sklearn.svm import LinearSVC\n    return LinearSVC()", "gives no probabilities"),
        ("from modelyard.train.training import Training\n    return Training(3)", "no torch module"),
        (
            "import torch\n    from modelyard.train.training import Training\n"
            "    return Training(torch.nn.Linear(1, 1), learning_rate=float('nan'))",
            "learning_rate is wrong",
        ),
        (
            "import torch\n    from modelyard.train.training import Training\n"
            "    return Training(torch.nn.Linear(1, 1), optimizer='adam')",
            "optimizer is unknown",
        ),
    ],
)
def test_what_cannot_be_trained_is_refused(recipe_of: Make, points: Dataset, body: str, words: str) -> None:
    with pytest.raises(TrainError, match=words):
        fit(recipe_of(f"def build(trial):\n    {body}\n"), {}, points)


def test_an_error_while_fitting_names_the_recipe(recipe_of: Make, prices: Dataset) -> None:
    recipe = recipe_of(
        "from sklearn.linear_model import Ridge\ndef build(trial):\n    return Ridge()\n", task="regression",
        metric="mae",
    )  # fmt: skip
    with pytest.raises(TrainError, match=r"recipe\.py: fitting raised ValueError: could not convert string"):
        fit(recipe, {}, prices)


def test_a_parameter_that_was_not_searched_is_explained(ridge: Recipe, prices: Dataset) -> None:
    with pytest.raises(TrainError, match=r"recipe\.py:11: .*'alpha'.*run the search again"):
        fit(ridge, {}, prices)


def test_a_metric_of_the_other_task_is_refused(ridge: Recipe, prices: Dataset) -> None:
    with pytest.raises(TrainError, match="does not judge regression"):
        fit(replace(ridge, metric="accuracy"), {"alpha": 1.0}, prices)
