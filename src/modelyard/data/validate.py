"""Holds a whole table against its contract, in one pass of DuckDB over Arrow's memory."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from modelyard.core.digest import JSON
from modelyard.core.errors import DataError
from modelyard.core.names import did_you_mean
from modelyard.core.unit import seconds, show_seconds
from modelyard.data.contract import Column, Contract
from modelyard.data.findings import Finding, Findings
from modelyard.data.physical import Table, as_text, fits, is_tensor, plain
from modelyard.data.tensorrules import tensor_findings

EXAMPLES = 3
"""How many offending values a finding shows."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule on one column: `broken` is the SQL condition that is true in rows that break it."""

    column: Column
    name: str
    broken: str
    allowed: float = 0.0
    promise: str = ""


@dataclass(slots=True)
class _Plan:
    """What a validation is going to do; filled column by column."""

    rules: list[Rule] = field(default_factory=list)
    columns: dict[str, Any] = field(default_factory=dict)
    checked: list[str] = field(default_factory=list)
    unchecked: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)


def validate(table: Table, contract: Contract, *, now: float | None = None, label: bool = True) -> Findings:
    """Every rule of the contract over every row.

    `now` (seconds since 1970) is needed to judge freshness. With `label=False` the label may be absent, as
    in requests. What breaks a rule is a finding, never an exception; an empty table, too, is one. The
    findings' rules are: empty, missing_column, unexpected_column, duplicate_column, type, missing,
    minimum, maximum, infinite, whole, boolean, category, unique, one_class, shape, datatype, freshness.
    Missing means null, NaN, or an empty text; where a share of missing is allowed, the rule breaks only
    above that share, and `rows` counts all that are missing.
    """
    plan = _Plan()
    table, plan.findings[:] = _readable(table)
    rows = table.num_rows
    if not rows:
        plan.findings.append(Finding("", "empty", 0, (), "the table has no rows"))
    _check_names(table, contract, plan, label)
    for column in contract.columns:
        if column.name in table.column_names:
            _plan_column(table.column(column.name), column, plan)
    if rows:
        if plan.rules:
            plan.findings += _judged(plan, rows)
        _check_key(table, contract, plan)
        _check_classes(table, contract, plan)
        _check_freshness(table, contract, plan, now)
    order = {column.name: place for place, column in enumerate(contract.columns)}
    plan.findings.sort(key=lambda finding: order.get(finding.column, -1))
    return Findings(rows, tuple(plan.checked), tuple(plan.unchecked), tuple(plan.findings))


def _readable(table: Table) -> tuple[Table, list[Finding]]:
    names = table.column_names
    twice = sorted({name for name in names if names.count(name) > 1})
    findings = [
        Finding(
            name, "duplicate_column", 0, (),
            f"{name!r}: {names.count(name)} columns have this name; only the first is judged",
        )
        for name in twice
    ]  # fmt: skip
    if twice:
        table = table.select([names.index(name) for name in dict.fromkeys(names)])
    try:
        return plain(table), findings
    except DataError:
        # Columns that Arrow can hold and no contract describes stay as they are and break the rule on types.
        columns = {}
        for name in table.column_names:
            try:
                columns[name] = plain(table.select([name])).column(name)
            except DataError:
                columns[name] = table.column(name)
        return pa.table(columns), findings


def _check_names(table: Table, contract: Contract, plan: _Plan, label: bool) -> None:
    known = [column.name for column in contract.columns]
    plan.checked.append("the names of the columns")
    for column in contract.columns:
        needless = column.role == "ignored" or (column.role == "label" and not label)
        if column.name in table.column_names:
            continue
        if needless:
            plan.unchecked.append(f"{column.name}: the column is absent ({column.role})")
            continue
        extra = [name for name in table.column_names if name not in known]
        hint = did_you_mean(column.name, extra) if extra else "add it, or take it out of the contract"
        message = f"{column.name!r}: the {column.role} column is absent; {hint}"
        plan.findings.append(Finding(column.name, "missing_column", 0, (), message))
    for name in table.column_names:
        if name not in known:
            message = f"{name!r}: the contract does not know this column; {did_you_mean(name, known)}"
            plan.findings.append(Finding(name, "unexpected_column", 0, (), message))


def _plan_column(values: pa.ChunkedArray, column: Column, plan: _Plan) -> None:
    if column.role == "ignored":
        plan.unchecked.append(f"{column.name}: ignored, nothing in it was checked")
        return
    if not fits(values.type, column.kind):
        kind = "tensor" if is_tensor(values.type) else str(values.type)
        message = f"{column.name!r}: the column is {kind}, the contract says {column.kind}"
        examples = () if kind == "tensor" else tuple(map(_shown, values[:1].to_pylist()))
        plan.findings.append(Finding(column.name, "type", len(values), examples, message))
        plan.unchecked.append(f"{column.name}: its values, because its type is wrong")
        return
    plan.checked.append(f"{column.name}: type {column.kind}")
    if column.kind == "tensor":
        found, checked, unchecked = tensor_findings(values, column)
        plan.findings += found
        plan.checked += checked
        plan.unchecked += unchecked
        return
    _PLANNERS[column.kind](_prepared(values, column), column, plan)


def _prepared(values: pa.ChunkedArray, column: Column) -> pa.ChunkedArray:
    if pa.types.is_null(values.type):
        return pc.cast(values, pa.string() if column.kind in ("category", "text") else pa.float64())
    if column.kind == "category" and not pa.types.is_string(values.type):
        return as_text(values)
    if pa.types.is_decimal(values.type) or pa.types.is_float16(values.type):
        return pc.cast(values, pa.float64())
    return values


def _plan_number(values: pa.ChunkedArray, column: Column, plan: _Plan) -> None:
    plan.columns[column.name] = values
    name = quoted(column.name)
    floating = pa.types.is_floating(values.type)
    missing = f"({name} IS NULL OR isnan({name}))" if floating else f"{name} IS NULL"
    known = f"NOT isnan({name}) AND " if floating else ""
    _plan_missing(column, missing, plan)
    if floating:
        plan.rules.append(Rule(column, "infinite", f"isinf({name})", promise="finite numbers"))
        plan.checked.append(f"{column.name}: finite")
        if column.kind == "integer":
            whole = f"isfinite({name}) AND {name} <> trunc({name})"
            plan.rules.append(Rule(column, "whole", whole, promise="whole numbers"))
            plan.checked.append(f"{column.name}: whole")
    # An infinite value is one finding, not two.
    finite = f"isfinite({name}) AND " if floating else known
    single = pa.types.is_float32(values.type)
    for rule, bound, sign in (("minimum", column.minimum, "<"), ("maximum", column.maximum, ">")):
        if bound is None or math.isinf(bound):
            plan.unchecked.append(f"{column.name}: no {rule} is promised")
            continue
        # A bound such as 0.1 has no exact float32: both sides are then rounded alike.
        literal = f"CAST({bound!r} AS {'FLOAT' if single else 'DOUBLE'})"
        what = f"at {'least' if rule == 'minimum' else 'most'} {bound:g}"
        plan.rules.append(Rule(column, rule, f"{finite}{name} {sign} {literal}", promise=what))
        plan.checked.append(f"{column.name}: {what}")


def _plan_boolean(values: pa.ChunkedArray, column: Column, plan: _Plan) -> None:
    plan.columns[column.name] = values
    name = quoted(column.name)
    floating = pa.types.is_floating(values.type)
    _plan_missing(column, f"({name} IS NULL OR isnan({name}))" if floating else f"{name} IS NULL", plan)
    if not pa.types.is_boolean(values.type):
        known = f"NOT isnan({name}) AND " if floating else ""
        plan.rules.append(Rule(column, "boolean", f"{known}{name} NOT IN (0, 1)", promise="0 and 1"))
        plan.checked.append(f"{column.name}: 0 and 1")


def _plan_category(values: pa.ChunkedArray, column: Column, plan: _Plan) -> None:
    plan.columns[column.name] = values
    name = quoted(column.name)
    _plan_missing(column, f"({name} IS NULL OR {name} = '')", plan)
    listed = ", ".join(literal(value) for value in column.categories or ())
    broken = f"{name} <> '' AND {name} NOT IN ({listed})"
    promise = f"one of {len(column.categories or ()):,} categories"
    plan.rules.append(Rule(column, "category", broken, promise=promise))
    plan.checked.append(f"{column.name}: {promise}")


def _plan_text(values: pa.ChunkedArray, column: Column, plan: _Plan) -> None:
    plan.columns[column.name] = values
    name = quoted(column.name)
    _plan_missing(column, f"({name} IS NULL OR {name} = '')", plan)
    plan.unchecked.append(f"{column.name}: what the text says")


def _plan_time(values: pa.ChunkedArray, column: Column, plan: _Plan) -> None:
    plan.columns[column.name] = values
    _plan_missing(column, f"{quoted(column.name)} IS NULL", plan)
    plan.unchecked.append(f"{column.name}: the range of the times")


_PLANNERS: dict[str, Callable[[pa.ChunkedArray, Column, _Plan], None]] = {
    "number": _plan_number,
    "integer": _plan_number,
    "boolean": _plan_boolean,
    "category": _plan_category,
    "text": _plan_text,
    "timestamp": _plan_time,
}


def _plan_missing(column: Column, missing: str, plan: _Plan) -> None:
    if column.missing_max >= 1:
        plan.unchecked.append(f"{column.name}: any number may be missing")
        return
    promise = "none missing" if column.missing_max == 0 else f"at most {column.missing_max:.3g} of it missing"
    plan.rules.append(Rule(column, "missing", missing, column.missing_max, promise))
    plan.checked.append(f"{column.name}: {promise}")


def _judged(plan: _Plan, rows: int) -> list[Finding]:
    """All rules in one pass, then one look-up of examples for each rule that broke."""
    with duckdb.connect(
        ":memory:", config={"threads": _threads(), "enable_external_access": "false"}
    ) as engine:
        engine.register("data", pa.table(plan.columns))
        counts: list[int] = []
        for start in range(0, len(plan.rules), 512):
            # Thousands of expressions in one statement cost more to plan than a second pass costs to run.
            part = plan.rules[start : start + 512]
            sums = ", ".join(f"count(*) FILTER (WHERE {rule.broken})" for rule in part)
            counts += engine.execute(f"SELECT {sums} FROM data").fetchall()[0]  # noqa: S608
        findings = []
        for rule, count in zip(plan.rules, counts, strict=True):
            if count and count > rule.allowed * rows:
                findings.append(_finding(rule, count, rows, engine))
    return findings


def _finding(rule: Rule, count: int, rows: int, engine: duckdb.DuckDBPyConnection) -> Finding:
    name = rule.column.name
    if rule.name == "missing":
        share = f"{count:,} of {rows:,} rows ({count / rows:.3g}) are missing"
        return Finding(
            name, "missing", count, (), f"{name!r}: {share}; the contract allows {rule.allowed:.3g}"
        )
    query = f"SELECT {quoted(name)} FROM data WHERE {rule.broken} LIMIT {EXAMPLES}"  # noqa: S608
    examples = tuple(_shown(row[0]) for row in engine.execute(query).fetchall())
    message = f"{name!r}: {count:,} of {rows:,} rows are not {rule.promise}, such as {', '.join(examples)}"
    return Finding(name, rule.name, count, examples, message)


def _check_key(table: Table, contract: Contract, plan: _Plan) -> None:
    key = contract.key
    if key is None:
        plan.unchecked.append("whether rows are there twice: the contract has no key")
        return
    if key.name not in table.column_names or not fits(table.column(key.name).type, key.kind):
        return
    values = table.column(key.name)
    known = values.drop_null() if values.null_count else values
    plan.checked.append(f"{key.name}: each value once")
    if len(pc.unique(known)) == len(known):
        return
    counts = pc.value_counts(known)
    several = counts.filter(pc.greater(counts.field("counts"), 1))
    repeated = int(pc.sum(several.field("counts")).as_py())
    examples = tuple(_shown(item["values"]) for item in several[:EXAMPLES].to_pylist())
    plan.findings.append(
        Finding(
            key.name, "unique", repeated, examples,
            f"{key.name!r}: {repeated:,} rows share a key with another row, such as {', '.join(examples)}",
        )
    )  # fmt: skip


def _check_classes(table: Table, contract: Contract, plan: _Plan) -> None:
    label = contract.label
    if contract.task != "classification" or len(contract.labels) < 2 or label.name not in table.column_names:
        return
    values = table.column(label.name)
    if not fits(values.type, label.kind) or len(values) < 2:
        return
    plan.checked.append(f"{label.name}: two classes or more")
    classes = [value for value in pc.unique(as_text(values)).to_pylist() if value]
    if len(classes) == 1:
        message = f"{label.name!r}: every row has the same class, {classes[0]!r}"
        plan.findings.append(Finding(label.name, "one_class", len(values), (classes[0],), message))


def _check_freshness(table: Table, contract: Contract, plan: _Plan, now: float | None) -> None:
    order = contract.order
    if not contract.freshness or order is None:
        plan.unchecked.append("freshness: the contract promises none")
        return
    if now is None or order.name not in table.column_names:
        plan.unchecked.append(
            "freshness: " + ("no time was given to judge it by" if now is None else "no times")
        )
        return
    values = table.column(order.name)
    if not fits(values.type, "timestamp") or order.kind != "timestamp":
        plan.unchecked.append(f"freshness: {order.name} is not a timestamp")
        return
    newest = pc.max(pc.cast(pc.cast(values, pa.timestamp("us"), safe=False), pa.int64())).as_py()
    plan.checked.append(f"freshness: the newest row is at most {contract.freshness} old")
    age = math.inf if newest is None else now - newest / 1e6
    if age > seconds(contract.freshness):
        shown = "unknown" if newest is None else show_seconds(age)
        message = f"the newest row by {order.name!r} is {shown} old; the contract allows {contract.freshness}"
        plan.findings.append(Finding(order.name, "freshness", 0, (), message))


def quoted(name: str) -> str:
    """A column's name as SQL, whatever is in it."""
    return '"' + name.replace('"', '""') + '"'


def literal(value: str) -> str:
    """A text as an SQL literal, whatever is in it."""
    return "'" + value.replace("'", "''") + "'"


def _threads() -> int:
    import os

    return max(1, len(os.sched_getaffinity(0)))


def _shown(value: JSON | object, limit: int = 60) -> str:
    if isinstance(value, float | np.floating):
        text = f"{float(value):.9g}"
    else:
        text = value if isinstance(value, str) else str(value)
    return text if len(text) <= limit else text[: limit - 1] + "…"
