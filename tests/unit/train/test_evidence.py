"""The verdicts that training gives to the score: model.3, model.5, infra.1, infra.2."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from modelyard.measure.measurement import Verdict
from modelyard.train.baselines import baselines
from modelyard.train.dataset import Dataset
from modelyard.train.recipe import Recipe
from modelyard.train.reproduce import reproduce
from modelyard.train.spec_tests import spec_tests
from modelyard.train.study import Study, TrialRow, convergence, tuning_verdict

Make = Callable[..., Recipe]


def _tests(verdict: Verdict) -> dict[str, bool]:
    return {row["name"]: row["passed"] for row in verdict.details["tests"]}


def test_a_seeded_network_is_reproducible(network: Recipe, points: Dataset) -> None:
    verdict = reproduce(network, {"width": 8}, points)
    assert verdict.claim == "infra.1"
    assert verdict.passed
    assert verdict.details["same_weights"] is True
    assert verdict.details["difference_with_another_seed"] > 0
    assert verdict.details["epochs"] == 2
    assert Verdict.from_json(verdict.to_json()).passed


def test_chance_from_outside_is_found_out(recipe_of: Make, points: Dataset) -> None:
    recipe = recipe_of(
        "import os\nfrom sklearn.ensemble import RandomForestClassifier\n"
        "def build(trial):\n"
        "    seed = int.from_bytes(os.urandom(4), 'big')\n"
        "    return RandomForestClassifier(n_estimators=3, random_state=seed)\n"
    )
    verdict = reproduce(recipe, {}, points)
    assert not verdict.passed
    assert "randomness" in verdict.why
    assert reproduce(recipe, {}, points, tolerance=1.0).passed


def test_a_sound_network_passes_its_specification(network: Recipe, points: Dataset) -> None:
    verdict = spec_tests(network, {"width": 16}, points)
    assert verdict.claim == "infra.2"
    assert verdict.passed, verdict.why
    assert len(_tests(verdict)) == 5


def test_a_sound_pipeline_passes_its_specification(ridge: Recipe, prices: Dataset) -> None:
    verdict = spec_tests(ridge, {"alpha": 1.0}, prices)
    assert verdict.passed, verdict.why
    assert len(_tests(verdict)) == 3


BROKEN = """
    import torch
    from modelyard.train.training import Training

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(2, 3)

        def forward(self, x):
            {forward}

    def build(trial):
        return Training(Net(), epochs=2, learning_rate={rate})
"""


@pytest.mark.parametrize(
    ("forward", "rate", "broken"),
    [
        ("return self.layer(x) + x.mean()", 0.05, "keeps its shape"),
        ("return self.layer(x) * 0", 0.05, "overfits one batch"),
    ],
)
def test_a_broken_network_fails_the_test_that_is_meant_for_it(
    recipe_of: Make, points: Dataset, forward: str, rate: float, broken: str
) -> None:
    if "mean" in forward:
        forward = "y = self.layer(x); y[:, 0] = y[:, 0] + 5 * x.mean(); return y"
    verdict = spec_tests(recipe_of(BROKEN.format(forward=forward, rate=rate)), {}, points)
    assert not verdict.passed
    assert _tests(verdict)[broken] is False
    assert broken in verdict.why


def test_a_recipe_that_hides_chance_from_a_resume_fails(recipe_of: Make, points: Dataset) -> None:
    recipe = recipe_of(
        BROKEN.format(
            forward="self.calls = getattr(self, 'calls', 0) + 1\n"
            "            return self.layer(x) * (1 + self.calls % 7)",
            rate=0.05,
        )
    )
    assert _tests(spec_tests(recipe, {}, points))["survives an interrupt"] is False


@pytest.mark.parametrize("name", ["points", "prices"])
def test_baselines_answer_every_row_and_learn(name: str, request: pytest.FixtureRequest) -> None:
    data: Dataset = request.getfixturevalue(name)
    found = {item.name: item.answers for item in baselines(data, data.validation)}
    assert list(found) == ["constant", "linear", "tree"]
    truth = data.validation_targets
    if data.task == "classification":
        assert all(np.allclose(answers.sum(axis=1), 1) for answers in found.values())
        right = {key: (answers.argmax(axis=1) == truth).mean() for key, answers in found.items()}
        assert right["tree"] > right["constant"]
        assert right["linear"] > right["constant"]
    else:
        errors = {key: np.abs(answers[:, 0] - truth).mean() for key, answers in found.items()}
        assert errors["linear"] < errors["tree"] < errors["constant"]


def test_baselines_stand_gaps_new_categories_and_empty_columns(prices: Dataset) -> None:
    holes = {name: array.copy() for name, array in prices.train.items()}
    holes["a"][::3] = np.nan
    holes["b"][:] = np.nan
    asked = {name: array[:5].copy() for name, array in prices.validation.items()}
    asked["a"][0] = np.inf
    asked["color"][1] = "green"
    for item in baselines(replace(prices, train=holes), asked):
        assert np.isfinite(item.answers).all()


def _study(trials: int, covered: dict[str, int], **more: Any) -> Study:
    rows = tuple(TrialRow(number, "complete", 0.5, {}, 1.0) for number in range(trials))
    return Study("s", "accuracy", "higher", {}, 0.5, rows, covered=covered, **more)


@pytest.mark.parametrize(
    ("study", "passed", "words"),
    [
        (_study(6, {"x": 5, "y": 2}, converged=True), True, "2 hyper-parameters over 6 trials, converged"),
        (_study(6, {"x": 5, "y": 2}), True, "not converged yet"),
        (_study(6, {"x": 5, "y": 1}), False, "tried at one value only: y"),
        (_study(1, {"x": 2}), False, "only 1 trial"),
        (_study(6, {}), False, "nothing was tuned"),
    ],
)
def test_the_verdict_on_tuning(study: Study, passed: bool, words: str) -> None:
    verdict = tuning_verdict(study)
    assert verdict.claim == "model.3"
    assert verdict.passed is passed
    assert words in verdict.why


def test_a_search_that_still_improves_has_not_converged() -> None:
    assert convergence([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], "higher") == (False, 2.0)
    assert convergence([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], "lower") == (True, 0.0)
    assert convergence([1.0, 1.0], "higher") == (False, 0.0)
