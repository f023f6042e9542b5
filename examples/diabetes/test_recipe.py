"""The project's own tests of its data and its recipe."""

import numpy as np
import optuna
import pytest
from data import COLUMNS, age_group, load
from recipe import build
from sklearn.datasets import load_diabetes

RIDGE = {"model": "ridge", "alpha": 1.0}
BOOSTING = {"model": "boosting", "trees": 20, "depth": 2, "learning_rate": 0.1}


@pytest.fixture(scope="module")
def frame():
    return load().to_pandas()


def test_the_data_are_scikit_learns_own(frame):
    study = load_diabetes(scaled=False)
    numbers = [name for name in COLUMNS if name != "sex"]
    assert np.array_equal(frame[numbers], study.data[:, [COLUMNS.index(name) for name in numbers]])
    assert np.array_equal(frame["sex"] == "sex-2", study.data[:, 1] == 2)
    assert np.array_equal(frame["target"], study.target)


def test_measurements_are_in_real_units(frame):
    assert len(frame) == 442
    assert frame["age"].between(18, 90).all()
    assert frame["bmi"].between(15, 50).all()
    assert set(frame["sex"]) == {"sex-1", "sex-2"}


@pytest.mark.parametrize("params", [RIDGE, BOOSTING], ids=["ridge", "boosting"])
def test_a_model_beats_the_mean(frame, params):
    model = build(optuna.trial.FixedTrial(params)).fit(frame[:300], frame["target"][:300])
    error = np.abs(model.predict(frame[300:]) - frame["target"][300:]).mean()
    assert error < 0.85 * np.abs(frame["target"][:300].mean() - frame["target"][300:]).mean()


def test_an_unknown_sex_is_answered_too(frame):
    model = build(optuna.trial.FixedTrial(RIDGE)).fit(frame, frame["target"])
    assert np.isfinite(model.predict(frame.head(1).assign(sex="unknown"))).all()


def test_age_groups():
    assert [age_group(age) for age in (18, 39, 40, 59, 60)] == [
        "under 40",
        "under 40",
        "40 to 59",
        "40 to 59",
        "60 and over",
    ]
