from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from modelyard.core.digest import canonical
from modelyard.core.errors import DataError
from modelyard.data.columnprofile import CategoricalProfile, NumericProfile, TensorProfile
from modelyard.data.contract import Column, Contract
from modelyard.data.profile import Profile, merged, profile
from modelyard.data.sketch import ACCURACY, BUCKETS, Sketch

floats = st.floats(-1e12, 1e12).filter(lambda value: value == 0 or abs(value) > 1e-9)
samples = st.lists(floats, min_size=1, max_size=60).map(np.array)


@settings(deadline=None)
@given(samples, st.floats(0, 1))
def test_a_quantile_is_within_the_bound(values: np.ndarray, q: float) -> None:
    exact = float(np.sort(values)[int(np.floor(q * (len(values) - 1)))])
    assert abs(Sketch.of(values).quantile(q) - exact) <= ACCURACY * abs(exact) * (1 + 1e-6)


@settings(deadline=None)
@given(samples, st.floats(0, 1), st.floats(1, 1e6))
def test_the_bound_is_measured_from_the_anchor(values: np.ndarray, q: float, anchor: float) -> None:
    values = np.round(np.abs(values) % 1000) + anchor
    exact = float(np.sort(values)[int(np.floor(q * (len(values) - 1)))])
    got = Sketch.of(values, anchor).quantile(q)
    assert abs(got - exact) <= ACCURACY * (exact - anchor) * (1 + 1e-6) + 1e-9 * anchor


@settings(deadline=None)
@given(samples, samples, samples)
def test_merging_is_exact_commutative_and_associative(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> None:
    one, two, three = Sketch.of(a), Sketch.of(b), Sketch.of(c)
    whole = Sketch.of(np.concatenate([a, b, c]))
    assert one.merge(two).merge(three) == whole
    assert one.merge(two.merge(three)) == whole
    assert three.merge(one).merge(two) == whole


@settings(deadline=None)
@given(samples, floats)
def test_the_distribution_function_brackets_the_truth(values: np.ndarray, x: float) -> None:
    sketch = Sketch.of(values)
    reach = ACCURACY * 2.1 * abs(x) + 1e-11
    assert np.mean(values <= x - reach) - 1e-12 <= sketch.cdf(x) <= np.mean(values <= x + reach) + 1e-12


def test_atoms_are_counted_whole() -> None:
    sketch = Sketch.of(np.array([0.0] * 5 + [1.0] * 3 + [7.0] * 2))
    assert sketch.cdf([-1.0, 0.0, 1.0, 7.0]).tolist() == [0.0, 0.5, 0.8, 1.0]
    assert sketch.histogram([-1, 0.5, 3, 10]).tolist() == [5, 3, 2]


def test_the_size_is_fixed() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=200_000) * 10.0 ** rng.uniform(-15, 18, 200_000)
    assert len(Sketch.of(values).keys) <= BUCKETS
    assert len(Sketch.of(rng.normal(size=200_000)).keys) < 1500


def test_an_empty_sketch_answers_nan() -> None:
    assert np.isnan(Sketch().quantile(0.5))
    assert np.isnan(Sketch().cdf([1.0])).all()


def test_other_anchors_do_not_merge() -> None:
    with pytest.raises(ValueError, match="anchor"):
        Sketch(anchor=1.0).merge(Sketch())


CONTRACT = Contract(
    "t",
    (
        Column("n", "number", minimum=1000, maximum=2000, missing_max=1),
        Column("c", "category", categories=("a", "b"), missing_max=1),
        Column("s", "text", missing_max=1),
        Column("b", "boolean", missing_max=1),
        Column("i", "text", "ignored"),
        Column("y", "category", "label", categories=("0", "1")),
    ),
)

row = st.fixed_dictionaries(
    {
        "n": st.one_of(st.none(), st.floats(width=32)),
        "c": st.sampled_from([None, "", "a", "b", "zzz"]),
        "s": st.one_of(st.none(), st.text(max_size=5)),
        "b": st.sampled_from([None, True, False]),
        "i": st.just("x"),
        "y": st.sampled_from(["0", "1"]),
    }
)
SCHEMA = pa.schema([("n", pa.float64()), ("b", pa.bool_())] + [(name, pa.string()) for name in "csiy"])


def close(one: Profile, other: Profile) -> bool:
    def plainly(value: object) -> object:
        if isinstance(value, dict):
            # Sums of floats depend on their order; everything else must be equal.
            return {key: plainly(item) for key, item in value.items() if key not in ("mean", "m2")}
        return [plainly(item) for item in value] if isinstance(value, list) else value

    return plainly(one.to_json()) == plainly(other.to_json())


@settings(max_examples=60, deadline=None)
@given(st.lists(row, max_size=12), st.lists(row, max_size=12), st.lists(row, max_size=12))
def test_the_profile_of_all_is_the_merged_profile_of_the_parts(a: list, b: list, c: list) -> None:
    one, two, three = (profile(pa.Table.from_pylist(rows, SCHEMA), CONTRACT) for rows in (a, b, c))
    whole = profile(pa.Table.from_pylist(a + b + c, SCHEMA), CONTRACT)
    assert close(merged([one, two, three]), whole)
    assert close(three.merge(one.merge(two)), whole)
    assert one.merge(two).to_json()["rows"] == len(a) + len(b)


@settings(deadline=None)
@given(arrays(np.float64, st.integers(1, 50), elements=st.floats(-1e6, 1e6)), st.integers(0, 49))
def test_mean_and_variance_merge_to_rounding(values: np.ndarray, cut: int) -> None:
    left, right = values[:cut], values[cut:]
    both = NumericProfile.of(left).merge(NumericProfile.of(right))
    assert both.mean == pytest.approx(values.mean(), rel=1e-9, abs=1e-6)
    assert both.std == pytest.approx(values.std(), rel=1e-6, abs=1e-4)


@settings(max_examples=30, deadline=None)
@given(st.lists(row, max_size=8))
def test_json_round_trip(rows: list) -> None:
    one = profile(pa.Table.from_pylist(rows, SCHEMA), CONTRACT)
    text = canonical(one.to_json())
    assert Profile.from_json(json.loads(text)) == one


def test_kinds_and_counts(table: pa.Table, contract: Contract) -> None:
    found = profile(table, contract)
    assert set(found.columns) == {"age", "height", "smoker", "city", "note", "scan", "risk"}
    city = found.columns["city"]
    assert isinstance(city, CategoricalProfile)
    assert (city.counts, city.missing, city.other) == ({"Bonn": 20, "Köln": 10}, 10, 0)
    age = found.columns["age"]
    assert isinstance(age, NumericProfile)
    assert (age.count, age.missing, age.nan, age.finite) == (40, 4, 0, 36)
    scan = found.columns["scan"]
    assert isinstance(scan, TensorProfile)
    assert set(scan.statistics) == {"mean", "std", "min", "max", "zeros"}


def test_tensor_statistics_are_those_of_numpy() -> None:
    values = np.random.default_rng(1).normal(size=(50, 3, 4)).astype(np.float32)
    values[:, 0] = 0
    found = TensorProfile.of(values, np.zeros(50, bool)).statistics
    flat = values.reshape(50, -1).astype(np.float64)
    assert found["mean"].mean == pytest.approx(flat.mean(axis=1).mean(), rel=1e-5)
    assert found["std"].mean == pytest.approx(flat.std(axis=1).mean(), rel=1e-5)
    assert found["zeros"].mean == pytest.approx(4 / 12)
    assert found["min"].min == pytest.approx(float(values.min()))


def test_predictions_are_profiled(table: pa.Table, contract: Contract) -> None:
    rows = table.num_rows
    extra = {
        "prediction": np.array(["low"] * rows, object),
        "confidence": np.full((rows, 1), 0.9, np.float32),
    }
    found = profile(table, contract, extra=extra).columns
    prediction, confidence = found["prediction"], found["confidence"]
    assert isinstance(prediction, CategoricalProfile) and prediction.counts == {"low": rows, "high": 0}
    assert isinstance(confidence, NumericProfile) and confidence.quantile(0.5) == pytest.approx(0.9)


def test_nan_and_infinity_and_null_are_told_apart() -> None:
    values = pa.table({"n": pa.array([1500.0, None, float("nan"), float("inf"), -float("inf")])})
    found = profile(values, CONTRACT).columns["n"]
    assert isinstance(found, NumericProfile)
    assert (found.missing, found.nan, found.inf, found.finite) == (1, 1, 2, 1)
    assert found.missing_rate == pytest.approx(0.4)


def test_an_empty_table_has_a_profile(table: pa.Table, contract: Contract) -> None:
    empty = profile(table.slice(0, 0), contract)
    assert close(empty.merge(profile(table, contract)), profile(table, contract))


def test_other_columns_do_not_merge(table: pa.Table, contract: Contract) -> None:
    with pytest.raises(ValueError, match="do not merge"):
        profile(table, contract).merge(profile(table.drop(["age"]), contract))


def test_a_later_version_is_refused() -> None:
    with pytest.raises(DataError, match="version"):
        Profile.from_json({"version": 9, "rows": 0, "columns": {}})
