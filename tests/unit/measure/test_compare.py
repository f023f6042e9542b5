"""Paired comparison: coverage, direction, the rows it takes to prove anything, and refusals with numbers."""

from __future__ import annotations

import numpy as np
import pytest

from modelyard.measure.compare import difference, non_inferior, rows_to_prove
from modelyard.measure.exact import paired_proportions
from modelyard.measure.metric import METRICS, Array


def hard(truth: Array, right: Array) -> Array:
    """Probabilities that are sure of the true class where `right`, else of the next one."""
    found = np.where(right, truth, (truth + 1) % 3)
    return np.where(np.arange(3) == found[:, None], 0.9, 0.05)


@pytest.mark.parametrize("name", ["accuracy", "log_loss", "f1_macro", "rmse", "r2"])
def test_paired_intervals_cover(name: str) -> None:
    rng = np.random.default_rng(1)

    def draw(rows: int) -> tuple[Array, Array, Array]:
        if METRICS[name].task == "classification":
            truth = rng.integers(0, 3, rows)
            right = rng.random(rows) < 0.85
            return truth, hard(truth, right), hard(truth, right ^ (rng.random(rows) < 0.05))
        truth = rng.normal(0, 3, rows)
        return truth, truth + rng.normal(0, 1, rows), truth + rng.normal(0.1, 1.1, rows)

    true = difference(name, *draw(200_000)).value
    hits = 0
    for run in range(80):
        found = difference(name, *draw(150), confidence=0.9, seed=run)
        assert found.low is not None and found.high is not None
        hits += found.low <= true <= found.high
    assert hits >= 61


def test_pairing_makes_the_interval_narrow() -> None:
    rng = np.random.default_rng(2)
    truth = rng.normal(0, 3, 500)
    first = truth + rng.normal(0, 1, 500)
    found = difference("mae", truth, first, first + 0.01 * rng.normal(size=500))
    assert found.low is not None and found.high is not None
    assert found.high - found.low < 0.005


def test_the_false_pass_rate_is_at_most_what_is_said() -> None:
    rng = np.random.default_rng(4)
    passes = 0
    for _ in range(300):
        truth = rng.integers(0, 3, 600)
        right = rng.random(600) < 0.9
        # Truly worse by exactly the margin of 3 points: passing would be wrong.
        worse = right & ~(rng.random(600) < 0.03 / 0.9)
        passes += non_inferior("accuracy", truth, hard(truth, right), hard(truth, worse), 0.03).passed
    assert passes <= 300 * 0.05 + 12


def test_direction_is_the_metrics_own() -> None:
    truth = np.zeros(300)
    near, far = np.tile([0.1, -0.2, 0.3], 100), np.tile([1.1, -1.2, 1.3], 100)
    assert non_inferior("mae", truth, far, near, 0.01).passed
    assert not non_inferior("mae", truth, near, far, 0.01).passed
    shifted = np.arange(300.0)
    assert non_inferior("r2", shifted, shifted + far, shifted + near, 1e-6).passed


def test_equal_answers_on_few_rows_prove_nothing_and_say_how_many_would() -> None:
    truth = np.zeros(100, dtype=np.int64)
    same = hard(truth, np.ones(100, bool))
    verdict = non_inferior("accuracy", truth, same, same, 0.005)
    assert not verdict.passed
    assert "need 539" in verdict.why


def test_rows_to_prove_is_the_least_count() -> None:
    for margin in (0.003, 0.01, 0.05):
        rows = rows_to_prove(margin)
        assert paired_proportions(0, 0, rows, 0.9)[0] > -margin
        assert paired_proportions(0, 0, rows - 1, 0.9)[0] <= -margin


def test_a_loss_is_refused_with_its_numbers() -> None:
    truth = np.zeros(1000, dtype=np.int64)
    right = np.ones(1000, bool)
    verdict = non_inferior(
        "accuracy", truth, hard(truth, right), hard(truth, np.arange(1000) >= 50), 0.01, of="young"
    )
    assert not verdict.passed
    assert verdict.claim == "non_inferior.accuracy[young]"
    assert "0.05 worse" in verdict.why
    assert verdict.details["lost"] == 50
    assert verdict.measurements[0].of == "young"


def test_answers_that_are_not_finite_fail() -> None:
    truth = np.zeros(1000, dtype=np.int64)
    good = hard(truth, np.ones(1000, bool))
    bad = good.copy()
    bad[3] = np.nan
    verdict = non_inferior("accuracy", truth, good, bad, 0.5)
    assert not verdict.passed
    assert "candidate: 1 of 1000 answers not finite" in verdict.why


@pytest.mark.parametrize("margin", [0.0, -0.1, float("nan"), float("inf")])
def test_a_margin_is_positive(margin: float) -> None:
    with pytest.raises(ValueError, match="margin"):
        non_inferior("mae", np.zeros(2), np.zeros(2), np.zeros(2), margin)


def test_answers_of_different_classes_are_refused() -> None:
    with pytest.raises(ValueError, match="one shape"):
        difference("log_loss", np.zeros(2, int), np.full((2, 2), 0.5), np.full((2, 3), 0.3))


def test_max_error_is_held_as_measured() -> None:
    truth = np.zeros(10)
    assert non_inferior("max_error", truth, truth + 1, truth + 1.05, 0.1).passed
    assert not non_inferior("max_error", truth, truth + 1, truth + 1.2, 0.1).passed
