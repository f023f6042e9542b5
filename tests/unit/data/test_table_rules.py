from __future__ import annotations

from dataclasses import replace

import pyarrow as pa

from modelyard.data.contract import Column, Contract
from modelyard.data.validate import validate


def test_names_are_compared_both_ways(table: pa.Table, contract: Contract) -> None:
    found = validate(
        table.rename_columns(["hight" if n == "height" else n for n in table.column_names]), contract
    )
    rules = {(finding.rule, finding.column) for finding in found.findings}
    assert rules == {("missing_column", "height"), ("unexpected_column", "hight")}
    assert any("did you mean 'height'" in finding.message for finding in found.findings)


def test_an_ignored_column_may_be_absent_and_the_label_when_asked(
    contract: Contract, table: pa.Table
) -> None:
    relaxed = replace(contract, columns=(*contract.columns, Column("extra", "text", "ignored")))
    assert validate(table.drop(["risk"]), relaxed, label=False).holds
    assert not validate(table.drop(["risk"]), relaxed).holds


def test_keys_are_unique_and_present(table: pa.Table, contract: Contract) -> None:
    ids = [0, 0, 0, None, *range(4, 40)]
    found = validate(table.set_column(0, "id", pa.array(ids)), contract).findings
    by_rule = {finding.rule: finding for finding in found}
    assert by_rule["unique"].rows == 3 and by_rule["unique"].examples == ("0",)
    assert by_rule["missing"].rows == 1


def test_one_class_is_a_finding(table: pa.Table, contract: Contract) -> None:
    labels = pa.array(["low"] * 40)
    place = table.column_names.index("risk")
    (finding,) = validate(table.set_column(place, "risk", labels), contract).findings
    assert finding.rule == "one_class"


def test_freshness_needs_a_time_and_says_so(table: pa.Table, contract: Contract) -> None:
    fresh = replace(contract, freshness="1h")
    assert any("freshness: no time was given" in item for item in validate(table, fresh).unchecked)
    assert validate(table, fresh, now=39 + 3600).holds
    (finding,) = validate(table, fresh, now=39 + 3601).findings
    assert finding.rule == "freshness"
