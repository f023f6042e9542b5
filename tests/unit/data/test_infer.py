from __future__ import annotations

from dataclasses import replace
from datetime import date
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelyard.core.errors import ContractError, DataError
from modelyard.data.contract import Column, Contract
from modelyard.data.infer import infer, merge_contract
from modelyard.data.physical import tensor_column
from modelyard.data.privacy import guess_privacy
from modelyard.data.validate import validate

ROWS = 60


def people() -> pa.Table:
    rng = np.random.default_rng(3)
    return pa.table(
        {
            "id": np.arange(ROWS) + 1000,
            "email": [f"user{place}@example.org" for place in range(ROWS)],
            "age": rng.integers(18, 80, ROWS),
            "income": pa.array([None if place < 6 else 1000.0 * place for place in range(ROWS)]),
            "zip": [f"0{place % 7}123" for place in range(ROWS)],
            "comment": [f"I said {place} things" for place in range(ROWS)],
            "level": rng.integers(0, 3, ROWS),
            "member": rng.integers(0, 2, ROWS).astype(bool),
            "joined": pa.array([date(2020, 1, 1)] * ROWS),
            "source": ["web"] * ROWS,
            "empty": pa.nulls(ROWS),
            "photo": tensor_column((rng.random((ROWS, 2, 3)) > 0.5).astype(np.float32)),
            "churned": rng.integers(0, 2, ROWS),
        }
    )


def inferred(table: pa.Table | None = None, **facts: Any) -> tuple[Contract, dict[str, str]]:
    wanted: dict[str, Any] = {"name": "t", "label": "churned", "task": "classification", **facts}
    found = infer(people() if table is None else table, **wanted)
    notes: dict[str, str] = {}
    for note in found.notes:
        name, _, words = note.partition(": ")
        notes[name] = notes.get(name, "") + words
    return found.contract, notes


def test_kinds_and_roles() -> None:
    contract, _ = inferred()
    assert {column.name: (column.kind, column.role) for column in contract.columns} == {
        "id": ("integer", "key"),
        "email": ("text", "ignored"),
        "age": ("integer", "feature"),
        "income": ("number", "feature"),
        "zip": ("category", "feature"),
        "comment": ("text", "ignored"),
        "level": ("integer", "feature"),
        "member": ("boolean", "feature"),
        "joined": ("timestamp", "order"),
        "source": ("category", "ignored"),
        "empty": ("text", "ignored"),
        "photo": ("tensor", "feature"),
        "churned": ("category", "label"),
    }


def test_what_is_left_out_is_said() -> None:
    _, notes = inferred()
    assert "an id or free text" in notes["email"] and "e-mail" in notes["email"] + "its name says so e-mail"
    assert "an id or free text" in notes["comment"]
    assert "same value" in notes["source"]
    assert "missing" in notes["empty"]
    assert "key" in notes["id"]
    assert "order" in notes["joined"]


def test_ranges_reach_beyond_what_was_seen_but_not_past_natural_limits() -> None:
    contract, _ = inferred()
    age, photo = contract.column("age"), contract.column("photo")
    ages = people().column("age").to_numpy()
    assert age.minimum is not None and age.maximum is not None
    assert 0 <= age.minimum < ages.min() and ages.max() < age.maximum < 1.3 * ages.max()
    assert (photo.minimum, photo.maximum) == (0, 1)
    level = contract.column("level")
    assert (level.minimum, level.maximum) == (0, 2)


def test_missing_has_head_room_only_where_something_is_missing() -> None:
    contract, _ = inferred()
    assert contract.column("income").missing_max == 0.16
    assert contract.column("age").missing_max == 0


def test_privacy_is_guessed() -> None:
    contract, _ = inferred()
    got = {column.name: column.privacy for column in contract.columns}
    assert (got["email"], got["age"], got["zip"], got["level"]) == ("personal", "quasi", "quasi", "none")


@pytest.mark.parametrize(
    ("name", "sample", "expected"),
    [
        ("firstName", [], "personal"),
        ("customer_name", [], "personal"),
        ("product_name", [], "none"),
        ("contact", ["+49 228 123456", "+1 (555) 010-9999"], "personal"),
        ("host", ["10.0.0.1", "192.168.1.255"], "personal"),
        ("account", ["DE89 3704 0044 0532 0130 00"], "personal"),
        ("number", ["123-45-6789"], "personal"),
        ("birth_date", [], "personal"),
        ("ethnicity", [], "sensitive"),
        ("sex", [], "quasi"),
        ("bmi", [], "none"),
        ("version", ["1.2.3"], "none"),
        ("price", ["12.50"], "none"),
    ],
)
def test_privacy_by_name_and_by_value(name: str, sample: list[str], expected: str) -> None:
    assert guess_privacy(name, sample)[0] == expected


def test_the_inferred_contract_holds_on_its_own_data() -> None:
    contract, _ = inferred()
    assert validate(people(), contract).holds


column_values = st.one_of(
    st.lists(st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1)), min_size=8, max_size=8),
    st.lists(st.one_of(st.none(), st.floats(allow_infinity=False)), min_size=8, max_size=8),
    st.lists(st.one_of(st.none(), st.text(max_size=3)), min_size=8, max_size=8),
    st.lists(st.one_of(st.none(), st.booleans()), min_size=8, max_size=8),
)


@settings(max_examples=40, deadline=None)
@given(st.lists(column_values, max_size=3))
def test_any_table_gives_a_contract_that_holds_on_it(columns: list[list[Any]]) -> None:
    table = pa.table(
        {
            **{f"c{place}": values for place, values in enumerate(columns)},
            "x": np.arange(8.0),
            "y": ["a", "b"] * 4,
        }
    )
    found = infer(table, name="t", label="y", task="classification")
    checked = validate(table, found.contract)
    assert checked.holds, checked.findings


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ([10, 2, 1] * 3, ("1", "2", "10")),
        ([10.0, 2.0, None] * 3, ("2", "10")),
        (["b", "a", "10"] * 3, ("10", "a", "b")),
        ([True, False, True] * 3, ("false", "true")),
    ],
)
def test_classes_are_text_in_numeric_order(labels: list[Any], expected: tuple[str, ...]) -> None:
    contract, notes = inferred(pa.table({"x": np.arange(9.0), "churned": labels}))
    assert contract.labels == expected
    assert ("missing in 3 rows" in notes.get("churned", "")) == (None in labels)


@pytest.mark.parametrize(
    ("labels", "task", "word"),
    [
        ([1] * 9, "classification", "1 class"),
        ([None] * 9, "classification", "no class"),
        (np.linspace(0, 1, 9), "classification", "regression"),
        (["a"] * 9, "regression", "classification"),
        ([1.0] * 9, "regression", "same value"),
        (pa.array([float("nan")] * 9), "regression", "no value"),
    ],
)
def test_a_label_that_cannot_be_learnt_is_refused(labels: Any, task: str, word: str) -> None:
    with pytest.raises(DataError, match=word):
        inferred(pa.table({"x": np.arange(9.0), "churned": labels}), task=task)


def test_a_regression_label_with_gaps_is_noted() -> None:
    contract, notes = inferred(
        pa.table({"x": np.arange(9.0), "churned": [None, float("nan"), *range(7)]}), task="regression"
    )
    assert contract.task == "regression" and "2 rows" in notes["churned"]


@pytest.mark.parametrize(
    ("table", "word"),
    [
        (pa.table({"x": pa.array([], pa.int64()), "churned": pa.array([], pa.int64())}), "empty"),
        (pa.table({}), "empty"),
        (pa.table({"x": [1], "churne": [1]}), "did you mean 'churne'"),
        (pa.table({"t": [f"text {place}" for place in range(30)], "churned": [0, 1] * 15}), "feature"),
        (pa.table([[1], [2], [0]], names=["x", "x", "churned"]), "share a name"),
    ],
)
def test_tables_that_no_contract_fits_are_refused(table: pa.Table, word: str) -> None:
    with pytest.raises(DataError, match=word):
        inferred(table)


def test_named_key_and_order_are_taken() -> None:
    contract, _ = inferred(key="email", order="id")
    assert contract.key is not None and contract.key.name == "email"
    assert contract.order is not None and contract.order.name == "id"
    with pytest.raises(DataError, match="key"):
        inferred(key="emial")


def test_huge_integers_are_noted() -> None:
    _, notes = inferred(pa.table({"x": [2**60, 1, 2, 3], "churned": [0, 1, 0, 1]}))
    assert "lose digits" in notes["x"]


def test_unicode_names() -> None:
    contract, _ = inferred(pa.table({"größe 📏": [1.0, 2.0], "churned": ["ja", "nein"]}))
    assert contract.features[0].name == "größe 📏"


def test_edits_win_and_new_columns_are_added() -> None:
    contract, _ = inferred()
    edited = replace(
        contract,
        columns=tuple(
            Column("age", "number", minimum=-5, owner="me") if column.name == "age" else column
            for column in contract.columns
            if column.name != "level"
        ),
    )
    merged = merge_contract(edited, contract)
    assert merged.contract.column("age").owner == "me" and merged.contract.column("age").minimum == -5
    assert merged.contract.columns[-1].name == "level"
    assert merged.notes == ("level: new in the data, added as integer (feature)",)
    gone = merge_contract(replace(contract, columns=(*contract.columns, Column("old", "number"))), contract)
    assert gone.notes == ("old: no longer in the data",) and gone.contract.column("old")


def test_another_label_is_not_merged() -> None:
    contract, _ = inferred()
    other, _ = inferred(label="member")
    with pytest.raises(ContractError, match="member"):
        merge_contract(contract, other)


def test_doubles_beyond_single_precision_are_no_features() -> None:
    table = pa.table(
        {"x": [1e308, -1e308] * 20, "z": [float(n % 7) for n in range(40)], "y": ["a", "b"] * 20}
    )
    found = infer(table, name="t", label="y", task="classification")
    assert found.contract.column("x").role == "ignored"
    assert any("x: ignored, its values go beyond single precision" in note for note in found.notes)
    assert validate(table, found.contract).holds
