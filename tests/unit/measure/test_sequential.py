"""Looking after every batch, for a long time: false alarms stay below alpha, and real harm is found soon."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from modelyard.measure.sequential import (
    BernoulliComparison,
    ConfidenceSequence,
    MeanComparison,
    ProportionSequence,
)

ALPHA = 0.1


def bad_luck(runs: int) -> int:
    """More misses than this in `runs` happen once in a thousand if the rate is ALPHA."""
    return int(stats.binom.ppf(0.999, runs, ALPHA))


@pytest.mark.parametrize("rate", [0.002, 0.05, 0.5])
def test_a_proportion_is_covered_at_every_look(rate: float) -> None:
    rng = np.random.default_rng(7)
    misses = 0
    for _ in range(60):
        found = ProportionSequence()
        for _ in range(60):
            found = found.update(rng.random(50) < rate)
            if found.evidence(rate) >= -np.log(ALPHA):
                misses += 1
                break
    assert misses <= bad_luck(60)


@pytest.mark.parametrize(("rate", "share"), [(0.003, 0.05), (0.02, 0.1), (0.3, 0.5)])
def test_peeking_at_two_equal_arms_gives_no_more_false_alarms_than_alpha(rate: float, share: float) -> None:
    rng = np.random.default_rng(8)
    runs, alarms, naive = 50, 0, 0
    for _ in range(runs):
        found = BernoulliComparison()
        alarmed = fooled = False
        for _ in range(60):
            arm = rng.random(150) < share
            error = rng.random(150) < rate
            found = found.update(error[~arm], error[arm])
            alarmed = alarmed or found.p_value() < ALPHA
            fooled = fooled or ordinary(found) < ALPHA
        alarms += alarmed
        naive += fooled
    assert alarms <= bad_luck(runs)
    # The same peeking at an ordinary test is what this guards against.
    assert naive > bad_luck(runs)


def ordinary(found: BernoulliComparison) -> float:
    """The one-sided z-test that people look at daily."""
    n0, n1 = found.reference.n, found.candidate.n
    pooled = (found.reference.successes + found.candidate.successes) / max(1, n0 + n1)
    error = np.sqrt(pooled * (1 - pooled) * (1 / max(1, n0) + 1 / max(1, n1)))
    return float(stats.norm.sf((found.candidate.mean - found.reference.mean) / error)) if error > 0 else 1.0


def test_arms_that_are_chosen_by_what_was_seen_are_still_covered() -> None:
    rng = np.random.default_rng(9)
    misses = 0
    for _ in range(60):
        found = BernoulliComparison()
        for _ in range(80):
            # The nastiest sender: more traffic to whichever arm looks worse.
            worse = found.candidate.n and found.candidate.mean > found.reference.mean
            sizes = (5, 60) if worse else (60, 5)
            found = found.update(rng.random(sizes[0]) < 0.05, rng.random(sizes[1]) < 0.05)
            misses_now = found.evidence(0.0) >= -np.log(ALPHA)
            if misses_now:
                misses += 1
                break
    assert misses <= bad_luck(60)


@pytest.mark.parametrize(
    ("rates", "share", "most"),
    [((0.01, 0.05), 0.1, 900), ((0.001, 0.02), 0.05, 900), ((0.05, 0.7), 0.1, 40), ((0.02, 0.05), 0.5, 2500)],
)
def test_real_harm_is_found_soon(rates: tuple[float, float], share: float, most: int) -> None:
    rng = np.random.default_rng(10)
    needed = []
    for _ in range(15):
        found = BernoulliComparison()
        while found.p_value() >= 0.05 and found.candidate.n < 10_000:
            arm = rng.random(40) < share
            found = found.update(
                rng.random(int((~arm).sum())) < rates[0], rng.random(int(arm.sum())) < rates[1]
            )
        needed.append(found.candidate.n)
    assert np.median(needed) < most


def test_seven_of_ten_failures_are_enough_and_one_is_not() -> None:
    champion = np.zeros(1000)
    assert BernoulliComparison().update(champion, np.repeat([0, 1], [3, 7])).p_value() < 1e-6
    assert BernoulliComparison().update(champion, np.ones(1)).p_value() > 0.01


def test_the_comparison_is_narrower_than_two_intervals() -> None:
    found = BernoulliComparison().update(np.repeat([0, 1], [950, 50]), np.repeat([0, 1], [450, 50]))
    low, high = found.interval(0.05)
    first, second = found.reference.interval(0.025), found.candidate.interval(0.025)
    assert high - low < 0.9 * (second[1] - first[0] - (second[0] - first[1]))
    assert low < 0.05 < high


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 60), st.integers(0, 60), st.integers(0, 60), st.integers(0, 60))
def test_interval_and_p_value_agree(s0: int, f0: int, s1: int, f1: int) -> None:
    found = BernoulliComparison(ProportionSequence(s0, s0 + f0), ProportionSequence(s1, s1 + f1))
    low, high = found.interval(0.05)
    assert -1 <= low <= high <= 1
    if found.reference.n and found.candidate.n:
        assert low <= s1 / (s1 + f1) - s0 / (s0 + f0) <= high
        assert (low > 1e-9) <= (found.p_value(0.0) <= 0.05)
        assert found.p_value(high) == 1.0
    # The other way round is the mirror image.
    mirrored = BernoulliComparison(found.candidate, found.reference).interval(0.05)
    assert (-mirrored[1], -mirrored[0]) == pytest.approx((low, high), abs=1e-6)


def test_evidence_against_a_difference_is_the_least_over_its_pairs() -> None:
    found = BernoulliComparison(ProportionSequence(3, 200), ProportionSequence(9, 100))
    for delta in (-0.01, 0.0, 0.05, 0.2):
        grid = np.linspace(max(0, -delta) + 1e-9, min(1, 1 - delta) - 1e-9, 4001)
        brute = min(found.reference.evidence(p) + found.candidate.evidence(p + delta) for p in grid)
        assert found.evidence(delta) == pytest.approx(brute, abs=1e-3)
        assert found.evidence(delta) <= brute + 1e-9


BETAS = {"low variance": (50, 50), "skewed": (0.5, 5), "two points": (0.02, 0.02)}


@pytest.mark.parametrize("kind", list(BETAS))
def test_a_bounded_mean_is_covered_at_every_look(kind: str) -> None:
    rng = np.random.default_rng(12)
    a, b = BETAS[kind]
    true = 10 * a / (a + b)
    misses = 0
    for _ in range(60):
        found = ConfidenceSequence(0.0, 10.0)
        for _ in range(15):
            found = found.update(10 * rng.beta(a, b, 20))
            low, high = found.interval(ALPHA)
            if not low <= true <= high:
                misses += 1
                break
    assert misses <= bad_luck(60)


def test_two_equal_bounded_means_give_no_more_false_alarms_than_alpha() -> None:
    rng = np.random.default_rng(13)
    alarms = 0
    for _ in range(40):
        found = MeanComparison.between(0.0, 1.0)
        for _ in range(15):
            found = found.update(rng.beta(2, 5, rng.integers(1, 40)), rng.beta(2, 5, rng.integers(1, 10)))
            if found.p_value() < ALPHA:
                alarms += 1
                break
    assert alarms <= bad_luck(40)


def test_a_shift_of_bounded_means_is_found() -> None:
    rng = np.random.default_rng(14)
    found = MeanComparison.between(0.0, 1.0).update(rng.beta(20, 80, 2000), rng.beta(30, 70, 300))
    low, high = found.interval(0.05)
    assert 0.05 < low < 0.1 < high < 0.15
    assert found.p_value() < 0.01
    assert found.p_value(0.2) == 1.0


def test_small_variance_gives_narrow_intervals() -> None:
    rng = np.random.default_rng(15)
    values = np.clip(rng.normal(0.3, 0.01, 1000), 0, 1)
    low, high = ConfidenceSequence().update(values).interval(0.05)
    counted = ProportionSequence().update(values).interval(0.05)
    assert high - low < 0.02
    assert counted[1] - counted[0] > 0.05


@settings(max_examples=20, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=60), st.integers(0, 60))
def test_updates_in_parts_are_one_update(values: list[float], cut: int) -> None:
    x = np.array(values)
    whole = ConfidenceSequence().update(x)
    parts = ConfidenceSequence().update(x[:cut]).update(x[cut:])
    assert parts.n == whole.n
    np.testing.assert_allclose(parts.wealth.up, whole.wealth.up, atol=1e-9)
    np.testing.assert_allclose(parts.wealth.down, whole.wealth.down, atol=1e-9)


def test_nothing_seen_says_nothing() -> None:
    assert ProportionSequence().interval() == (0.0, 1.0)
    assert ConfidenceSequence(-1, 1).interval() == (-1.0, 1.0)
    assert BernoulliComparison().interval() == (-1.0, 1.0)
    assert BernoulliComparison().p_value() == 1.0
    assert MeanComparison.between(0, 1).p_value() == 1.0


@pytest.mark.parametrize("bad", [[np.nan], [1.5], [-0.1], [np.inf]])
def test_values_outside_the_bounds_are_refused(bad: list[float]) -> None:
    for start in (ProportionSequence(), ConfidenceSequence()):
        with pytest.raises(ValueError, match="between 0 and 1"):
            start.update(np.array(bad))


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="alpha"):
        ProportionSequence().update(np.ones(3)).interval(0.0)
    with pytest.raises(ValueError, match="bounds"):
        ConfidenceSequence(1.0, 1.0)
    with pytest.raises(ValueError, match="bounds"):
        MeanComparison(ConfidenceSequence(0, 1), ConfidenceSequence(0, 2))
