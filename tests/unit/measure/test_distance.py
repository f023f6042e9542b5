"""Distances against scipy, on arrays and histograms."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats
from scipy.spatial.distance import jensenshannon

from modelyard.measure import distance as d
from modelyard.measure.metric import Array

COUNTS = hnp.arrays(np.int64, 6, elements=st.integers(20, 400))
SAMPLES = hnp.arrays(np.float64, st.integers(4, 40), elements=st.integers(-20, 20).map(float))


@settings(max_examples=60, deadline=None)
@given(SAMPLES, SAMPLES)
def test_ks_and_wasserstein_are_scipys(first: Array, second: Array) -> None:
    assert d.ks(first, second).statistic == pytest.approx(
        stats.ks_2samp(first, second, "two-sided", "asymp")[0]
    )
    assert d.wasserstein(first, second).statistic == pytest.approx(
        stats.wasserstein_distance(first, second), abs=1e-12
    )


@pytest.mark.parametrize("shift", [0.0, 0.2, 0.4])
@pytest.mark.parametrize("sizes", [(30, 40), (500, 200), (2000, 50)])
def test_the_ks_p_value_is_close_to_the_exact_one(shift: float, sizes: tuple[int, int]) -> None:
    rng = np.random.default_rng(sizes[0])
    first, second = rng.normal(size=sizes[0]), rng.normal(shift, 1, sizes[1])
    found = d.ks(first, second).p_value
    assert found == pytest.approx(stats.ks_2samp(first, second, method="exact").pvalue, rel=0.15, abs=0.02)


def test_ks_against_a_distribution_agrees_with_scipy() -> None:
    values = np.random.default_rng(0).normal(0.2, 1, 300)
    found = d.ks_from_cdf(stats.norm.cdf, 10**9, values)
    expected = stats.kstest(values, "norm")
    assert found.statistic == pytest.approx(expected.statistic)
    assert found.p_value == pytest.approx(expected.pvalue, rel=0.05)


def test_ks_against_a_step_distribution_is_zero_for_itself() -> None:
    values = np.array([1.0, 1.0, 2.0, 3.0])

    def cdf(x: Array) -> Array:
        return np.searchsorted(values, x, side="right") / len(values)

    assert d.ks_from_cdf(cdf, 4, values).statistic == 0.0


@settings(max_examples=60, deadline=None)
@given(COUNTS, COUNTS)
def test_counts_agree_with_scipy(p: Array, q: Array) -> None:
    shares = p / p.sum(), q / q.sum()
    assert d.jensen_shannon(p, q).statistic == pytest.approx(jensenshannon(*shares, base=2), abs=1e-9)
    assert d.kullback_leibler(p, q).statistic == pytest.approx(stats.entropy(shares[1], shares[0]), abs=1e-12)
    expected = stats.chi2_contingency(np.stack([p, q]), correction=False)
    found = d.chi_square(p, q)
    assert found.statistic == pytest.approx(expected.statistic)
    assert found.p_value == pytest.approx(expected.pvalue)
    assert d.psi(p, q).statistic == pytest.approx(
        stats.entropy(shares[0], shares[1]) + stats.entropy(shares[1], shares[0]), abs=1e-12
    )


def test_histograms_approach_the_values() -> None:
    rng = np.random.default_rng(1)
    first, second = rng.normal(size=5000), rng.normal(0.5, 1.3, 5000)
    edges = np.linspace(-8, 8, 400)
    p, q = np.histogram(first, edges)[0], np.histogram(second, edges)[0]
    assert d.wasserstein_counts(p, q, edges).statistic == pytest.approx(
        d.wasserstein(first, second).statistic, rel=0.01
    )
    assert d.ks_counts(p, q).statistic == pytest.approx(d.ks(first, second).statistic, rel=0.03)
    assert d.ks_counts(p, q).statistic <= d.ks(first, second).statistic


def test_a_gap_that_changes_sign_in_a_bin() -> None:
    # Uniform on [0, 2] against half at each end: both triangles count.
    assert d.wasserstein_counts(np.array([1, 2, 1]), np.array([2, 0, 2]), np.arange(4.0)).statistic == (
        pytest.approx(0.25 * 0.5 + 0.25 * 0.5 + 0.125)
    )


@pytest.mark.parametrize("name", ["chi_square", "psi"])
def test_p_values_are_uniform_without_drift(name: str) -> None:
    rng = np.random.default_rng(2)
    share = np.array([0.4, 0.3, 0.2, 0.08, 0.015, 0.005])
    found = [
        getattr(d, name)(rng.multinomial(4000, share), rng.multinomial(800, share)).p_value
        for _ in range(600)
    ]
    assert 0.02 <= np.mean(np.array(found) < 0.05) <= 0.09


def test_empty_bins_stay_finite() -> None:
    p, q = np.array([10, 0, 0]), np.array([0, 10, 0])
    for name in ("psi", "kullback_leibler", "jensen_shannon", "chi_square", "ks_counts"):
        assert np.isfinite(getattr(d, name)(p, q).statistic)
        assert getattr(d, name)(p, p).statistic == 0.0


def test_nothing_to_compare_is_not_a_number() -> None:
    none, some = np.array([np.nan]), np.array([1.0])
    for found in (d.ks(none, some), d.wasserstein(some, none), d.ks_from_cdf(stats.norm.cdf, 9, none)):
        assert np.isnan(found.statistic)
        assert found.p_value is None
    zeros, ones = np.zeros(3), np.ones(3)
    for name in ("psi", "kullback_leibler", "jensen_shannon", "chi_square", "ks_counts"):
        assert np.isnan(getattr(d, name)(zeros, ones).statistic)


@pytest.mark.parametrize(
    ("p", "q"),
    [(np.ones(2), np.ones(3)), (np.array([-1, 1]), np.ones(2)), (np.array([np.nan, 1]), np.ones(2))],
)
def test_wrong_counts_are_refused(p: Array, q: Array) -> None:
    with pytest.raises(ValueError, match="count"):
        d.psi(p, q)


def test_edges_must_fit() -> None:
    with pytest.raises(ValueError, match="edges"):
        d.wasserstein_counts(np.ones(2), np.ones(2), np.array([0.0, 1.0]))
    with pytest.raises(ValueError, match="edges"):
        d.wasserstein_counts(np.ones(2), np.ones(2), np.array([0.0, 1.0, np.inf]))
