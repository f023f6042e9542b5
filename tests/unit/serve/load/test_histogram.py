"""Percentiles of the buckets against numpy, and exact merges."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.serve.load.histogram import BUCKETS, ERROR, Histogram

durations = st.lists(st.floats(0, 4000, allow_nan=False), min_size=1, max_size=200)
fractions = st.sampled_from([0.0, 0.01, 0.5, 0.9, 0.99, 0.999, 1.0])


@given(durations, fractions)
def test_quantiles_are_numpys_within_the_error(values: list[float], fraction: float) -> None:
    true = float(np.quantile(values, fraction, method="inverted_cdf"))
    got = Histogram.of(values).quantile(fraction)
    assert true * (1 - 1e-9) - 1e-9 <= got <= true * (1 + ERROR) + 2e-9
    assert got <= max(values)


@pytest.mark.parametrize("kind", ["exponential", "lognormal", "bimodal"])
def test_quantiles_of_large_samples(kind: str) -> None:
    rng = np.random.default_rng(1)
    values = {
        "exponential": rng.exponential(0.002, 100_000),
        "lognormal": rng.lognormal(-6, 1.5, 100_000),
        "bimodal": np.where(rng.random(100_000) < 0.99, 0.001, 1.0) * rng.uniform(0.9, 1.1, 100_000),
    }[kind]
    histogram = Histogram.of(values)
    for fraction in (0.5, 0.9, 0.99, 0.999, 0.9999):
        true = np.quantile(values, fraction, method="inverted_cdf")
        assert true <= histogram.quantile(fraction) * (1 + 1e-9) <= true * (1 + ERROR) * (1 + 1e-6)
    assert histogram.mean == pytest.approx(values.mean(), rel=1e-4)
    assert (histogram.smallest, histogram.largest) == (values.min(), values.max())


@given(durations, durations, durations)
def test_merging_is_exact_in_any_order(a: list[float], b: list[float], c: list[float]) -> None:
    one, two, three = Histogram.of(a), Histogram.of(b), Histogram.of(c)
    whole = Histogram.of(a + b + c)
    for merged in (one.merge(two).merge(three), three.merge(one.merge(two))):
        assert (merged.counts, merged.total, merged.sum) == (whole.counts, whole.total, whole.sum)
        assert (merged.smallest, merged.largest) == (whole.smallest, whole.largest)


@given(durations)
def test_json_there_and_back(values: list[float]) -> None:
    histogram = Histogram.of(values)
    assert Histogram.from_json(json.loads(json.dumps(histogram.to_json()))) == histogram


def test_empty_and_wrong() -> None:
    empty = Histogram()
    assert math.isnan(empty.quantile(0.5)) and math.isnan(empty.mean)
    assert empty.merge(empty) == empty == Histogram.of([])
    assert Histogram.from_json(empty.to_json()) == empty
    assert Histogram.of([-1.0, 0.0]).quantile(1.0) == 0.0
    for value in ([math.nan], [math.inf]):
        with pytest.raises(ValueError, match="finite"):
            Histogram.of(value)
    with pytest.raises(ValueError, match="fraction"):
        empty.quantile(1.1)
    good = Histogram.of([1.0]).to_json()
    for bad in ({"format": 2}, {"counts": [[BUCKETS, 1]]}, {"counts": [[0, 0]]}, {"counts": [[-1, 2]]}):
        with pytest.raises(ValueError, match="histogram"):
            Histogram.from_json(good | bad)


def test_hours_fall_into_the_last_bucket() -> None:
    assert Histogram.of([1e6]).quantile(0.5) <= 1e6
