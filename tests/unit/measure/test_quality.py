"""Intervals that cover what they claim, bad input that is told, and the time it takes."""

from __future__ import annotations

import time

import numpy as np
import pytest
from scipy import stats

from modelyard.measure.exact import mcnemar, order_statistics, paired_proportions, proportion
from modelyard.measure.metric import METRICS, Array
from modelyard.measure.quality import quality


def answers(rng: np.random.Generator, rows: int, classes: int = 3) -> tuple[Array, Array]:
    truth = rng.integers(0, classes, rows)
    logits = rng.normal(0, 1, (rows, classes))
    logits[np.arange(rows), truth] += 1.5
    odds = np.exp(logits)
    return truth, odds / odds.sum(axis=1, keepdims=True)


def data(name: str, rng: np.random.Generator, rows: int) -> tuple[Array, Array]:
    if METRICS[name].task == "classification":
        return answers(rng, rows)
    truth = rng.gamma(3.0, 2.0, rows) + 1
    return truth, truth + rng.standard_t(5, rows)


@pytest.mark.parametrize("name", [n for n in METRICS if n not in ("max_error", "expected_calibration_error")])
def test_intervals_cover_the_truth_about_as_often_as_they_say(name: str) -> None:
    rng = np.random.default_rng(11)
    true = quality(name, *data(name, rng, 60_000)).value
    runs, hits = 80, 0
    for run in range(runs):
        found = quality(name, *data(name, rng, 120), confidence=0.9, seed=run)
        assert found.low is not None and found.high is not None
        assert found.low <= found.value <= found.high
        hits += found.low <= true <= found.high
    # 0.9 of 80 is 72; four standard errors of that count are 11, and bootstraps run a little narrow.
    assert hits >= 60


@pytest.mark.parametrize(("successes", "rows"), [(0, 1), (0, 10), (3, 10), (10, 10), (75, 1000)])
def test_the_exact_proportion_is_scipys(successes: int, rows: int) -> None:
    expected = stats.binomtest(successes, rows).proportion_ci(method="exact")
    assert proportion(successes, rows) == pytest.approx((expected.low, expected.high))


@pytest.mark.parametrize("quantile", [0.5, 0.9, 0.99])
def test_order_statistics_cover(quantile: float) -> None:
    rng = np.random.default_rng(3)
    hits = 0
    for _ in range(500):
        low, high = order_statistics(np.sort(rng.random(100)), quantile, 0.95)
        hits += (low is None or low <= quantile) and (high is None or quantile <= high)
    assert hits >= 0.95 * 500 - 15


def test_too_few_values_leave_an_end_open() -> None:
    assert order_statistics(np.arange(100.0), 0.99)[1] is None
    assert order_statistics(np.arange(368.0), 0.99)[1] is not None
    assert order_statistics(np.empty(0), 0.5) == (None, None)


def test_tango_covers_paired_differences_and_rare_ones() -> None:
    rng = np.random.default_rng(5)
    for lost_rate, gained_rate, rows in ((0.1, 0.05, 100), (0.01, 0.01, 300), (0.002, 0.0, 300)):
        draws = rng.multinomial(rows, [gained_rate, lost_rate, 1 - gained_rate - lost_rate], size=400)
        ends = [paired_proportions(int(g), int(m), rows, 0.9) for g, m, _ in draws]
        hits = sum(low <= gained_rate - lost_rate <= high for low, high in ends)
        assert hits >= 0.87 * 400


def test_mcnemar_is_the_exact_binomial_test() -> None:
    assert mcnemar(3, 12) == pytest.approx(stats.binomtest(3, 15).pvalue)
    assert mcnemar(0, 0) == 1.0


def test_all_right_is_not_certainty() -> None:
    truth = np.repeat([0, 1], [90, 10])
    perfect = np.eye(2)[truth]
    for name in ("accuracy", "f1_macro", "balanced_accuracy"):
        found = quality(name, truth, perfect)
        assert found.value == 1.0
        assert found.low is not None and found.low < 0.97


def test_the_same_seed_gives_the_same_interval() -> None:
    truth, answer = answers(np.random.default_rng(0), 200)
    assert quality("log_loss", truth, answer, seed=4) == quality("log_loss", truth, answer, seed=4)
    assert quality("log_loss", truth, answer, seed=4) != quality("log_loss", truth, answer, seed=5)


@pytest.mark.parametrize(
    ("name", "truth", "answer", "reason"),
    [
        ("accuracy", np.empty(0, int), np.empty((0, 2)), "no rows"),
        ("log_loss", np.array([0, 1]), np.array([[np.nan, 1], [0.5, 0.5]]), "1 of 2 answers not finite"),
        ("roc_auc", np.zeros(4, int), np.full((4, 2), 0.5), "only one class"),
        ("accuracy", np.array([0, 2]), np.full((2, 2), 0.5), "outside the 2 classes"),
        ("mae", np.array([1.0, np.inf]), np.ones(2), "1 of 2 targets not finite"),
        ("r2", np.ones(5), np.arange(5.0), "all targets are equal"),
        ("mae", np.empty(0), np.empty((0, 1)), "no rows"),
    ],
)
def test_what_has_no_value_says_why(name: str, truth: Array, answer: Array, reason: str) -> None:
    found = quality(name, truth, answer)
    assert np.isnan(found.value)
    assert found.low is None
    assert found.high is None
    assert reason in found.method


def test_one_row_has_a_value_and_no_interval() -> None:
    found = quality("mae", np.array([1.0]), np.array([2.0]))
    assert (found.value, found.low, found.high) == (1.0, None, None)


@pytest.mark.parametrize("name", list(METRICS))
def test_many_rows_stay_quick(name: str) -> None:
    rng = np.random.default_rng(0)
    truth, answer = data(name, rng, 30_000)
    start = time.perf_counter()
    found = quality(name, truth, answer)
    assert time.perf_counter() - start < 10
    if name != "max_error":
        assert found.low is not None and found.high is not None and found.low < found.value < found.high


@pytest.mark.serial
@pytest.mark.parametrize("name", list(METRICS))
def test_a_thousand_rows_take_less_than_a_third_of_a_second(name: str) -> None:
    rng = np.random.default_rng(0)
    truth, answer = answers(rng, 1000, 3) if METRICS[name].task == "classification" else data(name, rng, 1000)
    taken = []
    for _ in range(3):
        start = time.process_time()
        quality(name, truth, answer)
        taken.append(time.process_time() - start)
    assert min(taken) < 0.3
