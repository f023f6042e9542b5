from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelyard.core.errors import DataError, RequestError
from modelyard.data.contract import Column, Contract
from modelyard.data.tensors import features, from_rows, table_of, take, targets


def test_features_keep_the_one_tensor_rule(table: pa.Table, contract: Contract) -> None:
    tensors = features(table, contract)
    for spec in contract.inputs():
        assert spec.accepts(tensors[spec.name].shape)
        assert tensors[spec.name].dtype == spec.dtype
    assert np.isnan(tensors["age"][0, 0])
    assert tensors["city"][3, 0] == ""


def test_table_of_is_the_inverse(table: pa.Table, contract: Contract) -> None:
    tensors = features(table, contract)
    again = features(table_of(tensors, contract), contract)
    for name, values in tensors.items():
        np.testing.assert_array_equal(values, again[name])
    types = table_of(tensors, contract).schema
    assert (types.field("age").type, types.field("smoker").type) == (pa.int64(), pa.bool_())


def test_slices_and_chunks_give_the_same(table: pa.Table, contract: Contract) -> None:
    part = pa.concat_tables([table.slice(5, 3), table.slice(20, 4)])
    got = features(part, contract)
    want = take(features(table, contract), np.array([5, 6, 7, 20, 21, 22, 23]))
    for name, values in want.items():
        np.testing.assert_array_equal(values, got[name])


def test_targets_are_indices_into_the_labels(table: pa.Table, contract: Contract) -> None:
    got = targets(table, contract)
    assert got.dtype == np.int64
    assert got[:4].tolist() == [0, 1, 0, 1]


def test_numeric_labels_are_matched_as_text() -> None:
    contract = Contract(
        "t", (Column("x", "number"), Column("y", "category", "label", categories=("2", "10")))
    )
    assert targets(pa.table({"x": [1.0, 2.0], "y": [10, 2]}), contract).tolist() == [1, 0]


@pytest.mark.parametrize("labels", [["low", None], ["low", "middle"], [None, None]])
def test_a_label_that_is_no_class_is_refused(labels: list[Any], contract: Contract) -> None:
    with pytest.raises(DataError, match="'risk'"):
        targets(pa.table({"risk": pa.array(labels, pa.string())}), contract)


def test_a_label_that_is_no_number_is_refused() -> None:
    contract = Contract("t", (Column("x", "number"), Column("y", "number", "label")))
    with pytest.raises(DataError, match="1 of 2"):
        targets(pa.table({"y": [1.0, float("nan")]}), contract)
    assert targets(pa.table({"y": [1, 2]}), contract).tolist() == [1.0, 2.0]


def test_absent_and_wrong_columns_are_refused(table: pa.Table, contract: Contract) -> None:
    with pytest.raises(DataError, match="'height'"):
        features(table.drop(["height"]), contract)
    with pytest.raises(DataError, match="cannot be read as"):
        features(table.set_column(2, "height", pa.array(["tall"] * 40)), contract)


ROW: dict[str, Any] = {
    "age": 30, "height": 1.8, "smoker": True, "city": "Bonn", "note": None, "scan": [[0, 1], [0.5, 0]],
}  # fmt: skip


def test_rows_become_tensors(contract: Contract) -> None:
    tensors = from_rows([ROW, {**ROW, "age": None, "id": 7, "risk": "low", "city": None}], contract)
    for spec in contract.inputs():
        assert spec.accepts(tensors[spec.name].shape) and tensors[spec.name].dtype == spec.dtype
    assert np.isnan(tensors["age"][1, 0]) and tensors["city"][1, 0] == ""
    assert tensors["smoker"][0, 0] == 1.0


def test_an_optional_column_may_be_left_out(contract: Contract) -> None:
    row = {name: value for name, value in ROW.items() if name not in ("note", "age")}
    assert np.isnan(from_rows([row], contract)["age"][0, 0])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"height": "tall"}, ("rows[1]", "'height'", "'tall'", "a number")),
        ({"height": "1.8"}, ("without quotes",)),
        ({"height": True}, ("'height'", "True")),
        ({"height": None}, ("'height' is missing", "allows no missing")),
        ({"height": float("nan")}, ("'height'",)),
        ({"height": float("inf")}, ("'height'", "finite")),
        ({"height": 10**400}, ("'height'", "finite")),
        ({"height": 1e300}, ("single precision",)),
        ({"height": [1.8]}, ("'height'",)),
        ({"age": 30.5}, ("'age'", "whole")),
        ({"smoker": "yes"}, ("'smoker'", "true or false")),
        ({"smoker": 2}, ("'smoker'",)),
        ({"city": ["Bonn"]}, ("'city'", "a text")),
        ({"note": 3}, ("'note'", "a text")),
        ({"scan": [[0, 1]]}, ("'scan'", "[1, 2]", "[2, 2]")),
        ({"scan": [[0, 1], [0]]}, ("'scan'", "different lengths")),
        ({"scan": [["a", "b"], ["c", "d"]]}, ("'scan'", "lists of numbers")),
        ({"scan": [[0, None], [0, 0]]}, ("'scan'",)),
        ({"scan": [[0, 1e300], [0, 0]]}, ("'scan'", "finite")),
        ({"scan": 3}, ("'scan'", "lists of numbers")),
        ({"scan": None}, ("'scan' is missing",)),
        ({"hight": 1.8}, ("'hight'", "did you mean 'height'")),
    ],
)
def test_a_wrong_value_names_row_column_value_and_rule(
    change: dict[str, Any], words: tuple[str, ...], contract: Contract
) -> None:
    with pytest.raises(RequestError) as caught:
        from_rows([ROW, {**ROW, **change}], contract)
    assert caught.value.status == 400
    for word in ("rows[1]", *words):
        assert word in str(caught.value)


@pytest.mark.parametrize("rows", [[], {}, "x", None, [1], [ROW, None]])
def test_what_are_no_rows_is_refused(rows: Any, contract: Contract) -> None:
    with pytest.raises(RequestError, match="rows"):
        from_rows(rows, contract)


def test_integer_tensors_are_strict() -> None:
    contract = Contract(
        "t", (Column("x", "tensor", shape=(2,), datatype="UINT8"), Column("y", "number", "label"))
    )
    assert from_rows([{"x": [0, 255]}], contract)["x"].dtype == np.uint8
    for wrong in ([0, 256], [-1, 0], [0.5, 1], [0, 2**70]):
        with pytest.raises(RequestError, match="'x'"):
            from_rows([{"x": wrong}], contract)


json_like = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=150, deadline=None)
@given(value=json_like, name=st.sampled_from(["age", "height", "smoker", "city", "note", "scan"]))
def test_any_json_is_read_or_refused(value: Any, name: str) -> None:
    contract = Contract(
        "t",
        (
            Column("age", "integer"),
            Column("height", "number"),
            Column("smoker", "boolean"),
            Column("city", "category", categories=("a",)),
            Column("note", "text"),
            Column("scan", "tensor", shape=(2, 2), datatype="FP32"),
            Column("y", "number", "label"),
        ),
    )
    try:
        tensors = from_rows([{**ROW, "note": "n", name: value}], contract)
    except RequestError:
        return
    assert all(spec.accepts(tensors[spec.name].shape) for spec in contract.inputs())
