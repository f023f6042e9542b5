from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from modelyard.data.contract import Column, Contract
from modelyard.data.findings import Finding, Findings
from modelyard.data.physical import BEYOND_SINGLE, tensor_column
from modelyard.data.validate import validate


def one(column: Column) -> Contract:
    return Contract("t", (column, Column("y", "number", "label")))


def broken(values: Any, column: Column) -> list[Finding]:
    rows = len(values)
    table = pa.table({column.name: values, "y": pa.array(np.arange(rows, dtype=float))})
    return list(validate(table, one(column)).findings)


def test_good_data_holds(table: pa.Table, contract: Contract) -> None:
    found = validate(table, contract)
    assert found.holds, found.findings
    assert found.rows == 40
    assert found.to_verdict().passed
    assert found.to_verdict().claim == "data.contract"


@pytest.mark.parametrize(
    ("values", "column", "rule", "rows", "example"),
    [
        ([1.0, -2.0, -3.0], Column("x", "number", minimum=0), "minimum", 2, "-2"),
        ([1, 200], Column("x", "integer", maximum=120), "maximum", 1, "200"),
        ([1.0, float("inf"), -float("inf")], Column("x", "number", maximum=5), "infinite", 2, "inf"),
        ([1.0, 1e308, -3.5e38], Column("x", "number", maximum=5), "infinite", 2, "1e+308"),
        ([1.0, None, 1e308], Column("x", "integer", missing_max=0.5), "infinite", 1, "1e+308"),
        ([1.0, 1.5], Column("x", "integer"), "whole", 1, "1.5"),
        ([0, 1, 7], Column("x", "boolean"), "boolean", 1, "7"),
        (["a", "ä'\"; DROP"], Column("x", "category", categories=("a", "b")), "category", 1, "ä'\"; DROP"),
        ([1, 2, 3], Column("x", "category", categories=("1", "2")), "category", 1, "3"),
        ([1.0, None, float("nan")], Column("x", "number"), "missing", 2, None),
        (["a", None, ""], Column("x", "text"), "missing", 2, None),
        ([None, None], Column("x", "number", missing_max=0.5), "missing", 2, None),
        (["a", "b"], Column("x", "number"), "type", 2, "a"),
        ([1, 2], Column("x", "text"), "type", 2, "1"),
        ([2**62, 5], Column("x", "integer", maximum=10), "maximum", 1, str(2**62)),
    ],
)  # fmt: skip
def test_each_rule_counts_rows_exactly(
    values: list[Any], column: Column, rule: str, rows: int, example: str | None
) -> None:
    (finding,) = broken(pa.array(values), column)
    assert (finding.column, finding.rule, finding.rows) == ("x", rule, rows)
    assert example is None or finding.examples[0] == example
    assert "'x'" in finding.message


def test_a_share_of_missing_is_allowed() -> None:
    column = Column("x", "number", missing_max=0.5)
    assert not broken(pa.array([1.0, 2.0, None, None]), column)
    (finding,) = broken(pa.array([1.0, None, None, float("nan")]), column)
    assert finding.rows == 3


def test_infinity_is_one_finding_not_two() -> None:
    found = broken(pa.array([float("inf")] * 2), Column("x", "number", minimum=0, maximum=1))
    assert [finding.rule for finding in found] == ["infinite"]


def test_bounds_are_inclusive_for_single_precision_too() -> None:
    assert not broken(pa.array([0.1], pa.float32()), Column("x", "number", minimum=0.1, maximum=0.1))


def test_at_most_three_examples(table: pa.Table) -> None:
    (finding,) = broken(pa.array(np.arange(1000.0)), Column("x", "number", maximum=-1))
    assert finding.rows == 1000 and len(finding.examples) == 3


def test_two_columns_of_one_name_are_a_finding(table: pa.Table, contract: Contract) -> None:
    twice = table.append_column("age", table.column("height"))
    assert [finding.rule for finding in validate(twice, contract).findings] == ["duplicate_column"]


def test_an_empty_table_is_a_finding(table: pa.Table, contract: Contract) -> None:
    assert [finding.rule for finding in validate(table.slice(0, 0), contract).findings] == ["empty"]
    assert "empty" in {finding.rule for finding in validate(pa.table({}), contract).findings}


def test_labels_may_come_as_numbers() -> None:
    contract = Contract(
        "t", (Column("x", "number"), Column("y", "category", "label", categories=("0", "1", "10")))
    )
    for labels in (pa.array([0, 1, 10]), pa.array([0.0, 1.0, 10.0]), pa.array(["0", "1", "10"])):
        assert validate(pa.table({"x": [1.0, 2.0, 3.0], "y": labels}), contract).holds


def tensors(values: Any, **facts: Any) -> list[Finding]:
    array = values if isinstance(values, pa.Array) else tensor_column(np.asarray(values))
    promise: dict[str, Any] = {"shape": (2,), "datatype": "FP32", **facts}
    return broken(array, Column("x", "tensor", **promise))


def test_tensor_rules() -> None:
    good = np.array([[0, 1], [0.5, 0.5]], np.float32)
    assert not tensors(good, minimum=0, maximum=1)
    assert [f.rule for f in tensors(good, shape=(2, 1))] == ["shape"]
    assert [f.rule for f in tensors(good.astype(np.float64))] == ["datatype"]
    (finding,) = tensors(np.array([[0, 2], [3, 4], [0, 0]], np.float32), maximum=1)
    assert (finding.rule, finding.rows, finding.examples) == ("maximum", 2, ("2", "3", "4"))
    bad = np.array([[np.nan, 0], [np.inf, -np.inf], [0, 0]], np.float32)
    assert {(f.rule, f.rows) for f in tensors(bad, minimum=0)} == {("missing", 1), ("infinite", 1)}
    assert not tensors(np.array([[0, 255]], np.uint8), datatype="UINT8", minimum=0, maximum=255)
    storage = pa.array([[1.0, 2.0], None], pa.list_(pa.float32(), 2))
    null = pa.ExtensionArray.from_storage(pa.fixed_shape_tensor(pa.float32(), [2]), storage)
    assert [(f.rule, f.rows) for f in tensors(null)] == [("missing", 1)]
    assert [f.rule for f in broken(pa.array([1.0]), Column("x", "tensor", shape=(2,), datatype="FP32"))] == [
        "type"
    ]


def test_what_was_not_checked_is_said(table: pa.Table, contract: Contract) -> None:
    bare = replace(contract, columns=tuple(
        replace(column, maximum=None) if column.name == "height" else column for column in contract.columns
    ))  # fmt: skip
    unchecked = validate(table, bare).unchecked
    for words in (
        "height: no maximum is promised",
        "note: what the text says",
        "freshness: the contract promises",
    ):
        assert any(words in item for item in unchecked), (words, unchecked)


def test_names_with_quotes_and_unicode_are_safe() -> None:
    name = 'größe "x"; DROP TABLE data; --'
    (finding,) = broken(pa.array([5.0]), replace(Column("x", "number", maximum=1), name=name))
    assert finding.column == name and finding.rows == 1


def test_types_that_no_contract_describes_are_findings() -> None:
    assert [f.rule for f in broken(pa.array([{"a": 1}]), Column("x", "number"))] == ["type"]


def test_dictionaries_decimals_and_large_strings_are_read() -> None:
    category = Column("x", "category", categories=("a", "b"))
    assert not broken(pa.array(["a", "b"]).dictionary_encode(), category)
    assert not broken(pa.array(["a", "b"], pa.large_string()), category)
    decimals = pa.array([1.5, 9.0]).cast(pa.decimal128(5, 2))
    assert [f.rule for f in broken(decimals, Column("x", "number", maximum=2))] == ["maximum"]


def test_thousands_of_rules_take_several_passes() -> None:
    columns = {f"c{place}": [1.0, 5.0] for place in range(260)}
    contract = Contract(
        "t",
        (*(Column(name, "number", minimum=0, maximum=2) for name in columns), Column("y", "number", "label")),
    )
    found = validate(pa.table({**columns, "y": [1.0, 2.0]}), contract)
    assert len(found.findings) == 260 and all(finding.rows == 1 for finding in found.findings)


def test_findings_round_trip(table: pa.Table, contract: Contract) -> None:
    found = validate(table.drop(["age"]), contract)
    assert Findings.from_json(found.to_json()) == found
    verdict = found.to_verdict("data.1")
    assert not verdict.passed and "'age'" in verdict.why


def test_the_largest_single_is_finite_and_the_next_double_beyond_it_is_not() -> None:
    largest = float(np.finfo(np.float32).max)
    column = Column("x", "number")
    assert not broken(pa.array([largest, -largest]), column)
    assert not broken(pa.array([largest], pa.float32()), column)
    found = broken(pa.array([BEYOND_SINGLE, -BEYOND_SINGLE, np.nextafter(BEYOND_SINGLE, 0)]), column)
    assert [(finding.rule, finding.rows) for finding in found] == [("infinite", 2)]
    with np.errstate(over="ignore"):
        assert np.isinf(np.float32(BEYOND_SINGLE))
    assert np.float32(np.nextafter(BEYOND_SINGLE, 0)) == np.float32(largest)
