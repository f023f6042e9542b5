"""Holds a whole table against its contract: DuckDB over Arrow's memory.

One pass takes the extremes and the gaps of every column, which clears the columns that keep their promise;
only the others are read again, to count the rows that break each rule and to fetch examples.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from modelyard.core.errors import DataError
from modelyard.data.contract import Column, Contract
from modelyard.data.findings import Finding, Findings
from modelyard.data.physical import BEYOND_SINGLE, Table, as_text, fits, is_tensor, plain
from modelyard.data.table_rules import check_classes, check_freshness, check_key, check_names
from modelyard.data.tensorrules import tensor_findings
from modelyard.data.validation_plan import EXAMPLES, Plan, Rule, shown


def validate(table: Table, contract: Contract, *, now: float | None = None, label: bool = True) -> Findings:
    """Every rule of the contract over every row.

    `now` (seconds since 1970) is needed to judge freshness. With `label=False` the label may be absent, as
    in requests. What breaks a rule is a finding, never an exception; an empty table, too, is one. The
    findings' rules are: empty, missing_column, unexpected_column, duplicate_column, type, missing,
    minimum, maximum, infinite, whole, boolean, category, unique, one_class, shape, datatype, freshness.
    Missing means null, NaN, or an empty text; where a share of missing is allowed, the rule breaks only
    above that share, and `rows` counts all that are missing.
    """
    plan = Plan()
    table, plan.findings[:] = _readable(table)
    rows = table.num_rows
    if not rows:
        plan.findings.append(Finding("", "empty", 0, (), "the table has no rows"))
    check_names(table, contract, plan, label)
    for column in contract.columns:
        if column.name in table.column_names:
            _plan_column(table.column(column.name), column, plan)
    if rows:
        if plan.rules:
            plan.findings += _judged(plan, rows)
        check_key(table, contract, plan)
        check_classes(table, contract, plan)
        check_freshness(table, contract, plan, now)
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


def _plan_column(values: pa.ChunkedArray, column: Column, plan: Plan) -> None:
    if column.role == "ignored":
        plan.unchecked.append(f"{column.name}: ignored, nothing in it was checked")
        return
    if not fits(values.type, column.kind):
        kind = "tensor" if is_tensor(values.type) else str(values.type)
        message = f"{column.name!r}: the column is {kind}, the contract says {column.kind}"
        examples = () if kind == "tensor" else tuple(map(shown, values[:1].to_pylist()))
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


def _plan_number(values: pa.ChunkedArray, column: Column, plan: Plan) -> None:
    plan.columns[column.name] = values
    name = quoted(column.name)
    floating = pa.types.is_floating(values.type)
    # An infinite value is one finding, not two.
    finite = f"abs({name}) < {BEYOND_SINGLE!r} AND " if floating else ""
    _plan_missing(column, f"({name} IS NULL OR isnan({name}))" if floating else f"{name} IS NULL", plan)
    if floating:
        broken = f"NOT isnan({name}) AND NOT abs({name}) < {BEYOND_SINGLE!r}"
        plan.add(Rule(column, "infinite", broken, promise="finite numbers of single precision"))
    if floating and column.kind == "integer":
        plan.add(Rule(column, "whole", f"{finite}{name} <> trunc({name})", promise="whole numbers"))
    else:
        plan.bounds[column.name] = _extremes(column)
    single = pa.types.is_float32(values.type)
    for rule, bound, sign in (("minimum", column.minimum, "<"), ("maximum", column.maximum, ">")):
        if bound is None or math.isinf(bound):
            plan.unchecked.append(f"{column.name}: no {rule} is promised")
            continue
        # A bound such as 0.1 has no exact float32: both sides are then rounded alike.
        edge = f"CAST({bound!r} AS {'FLOAT' if single else 'DOUBLE'})"
        what = f"at {'least' if rule == 'minimum' else 'most'} {bound:g}"
        plan.add(Rule(column, rule, f"{finite}{name} {sign} {edge}", promise=what))


def _extremes(column: Column) -> tuple[float, float]:
    """What finite values lie between, at least; an infinite bound is none."""
    largest = float(np.finfo(np.float32).max)
    low = -largest if column.minimum is None else max(column.minimum, -largest)
    return low, largest if column.maximum is None else min(column.maximum, largest)


def _plan_boolean(values: pa.ChunkedArray, column: Column, plan: Plan) -> None:
    plan.columns[column.name] = values
    name = quoted(column.name)
    floating = pa.types.is_floating(values.type)
    _plan_missing(column, f"({name} IS NULL OR isnan({name}))" if floating else f"{name} IS NULL", plan)
    if pa.types.is_boolean(values.type):
        plan.bounds[column.name] = None
        return
    known = f"NOT isnan({name}) AND " if floating else ""
    plan.add(Rule(column, "boolean", f"{known}{name} NOT IN (0, 1)", promise="0 and 1"))


def _plan_category(values: pa.ChunkedArray, column: Column, plan: Plan) -> None:
    """Judges the distinct values at once: they are few, whatever the number of rows."""
    counts = pc.value_counts(values)
    found = dict(zip(counts.field("values").to_pylist(), counts.field("counts").to_pylist(), strict=True))
    missing = found.pop(None, 0) + found.pop("", 0)
    rule = _plan_missing(column, "", plan)
    if rule and missing > column.missing_max * len(values):
        plan.findings.append(_missing_finding(rule, missing, len(values)))
    promise = f"one of {len(column.categories or ()):,} categories"
    plan.checked.append(f"{column.name}: {promise}")
    known = set(column.categories or ())
    unknown = {value: count for value, count in found.items() if value not in known}
    if unknown:
        examples = tuple(shown(value) for value in list(unknown)[:EXAMPLES])
        broken = Rule(column, "category", "", promise=promise)
        plan.findings.append(_broken_finding(broken, sum(unknown.values()), len(values), examples))


def _plan_text(values: pa.ChunkedArray, column: Column, plan: Plan) -> None:
    plan.columns[column.name] = values
    name = quoted(column.name)
    _plan_missing(column, f"({name} IS NULL OR {name} = '')", plan)
    plan.unchecked.append(f"{column.name}: what the text says")


def _plan_time(values: pa.ChunkedArray, column: Column, plan: Plan) -> None:
    plan.columns[column.name] = values
    plan.bounds[column.name] = None
    _plan_missing(column, f"{quoted(column.name)} IS NULL", plan)
    plan.unchecked.append(f"{column.name}: the range of the times")


_PLANNERS: dict[str, Callable[[pa.ChunkedArray, Column, Plan], None]] = {
    "number": _plan_number,
    "integer": _plan_number,
    "boolean": _plan_boolean,
    "category": _plan_category,
    "text": _plan_text,
    "timestamp": _plan_time,
}


def _plan_missing(column: Column, missing: str, plan: Plan) -> Rule | None:
    if column.missing_max >= 1:
        plan.unchecked.append(f"{column.name}: any number may be missing")
        return None
    promise = "none missing" if column.missing_max == 0 else f"at most {column.missing_max:.3g} of it missing"
    rule = Rule(column, "missing", missing, column.missing_max, promise)
    if missing:
        plan.add(rule)
    else:
        plan.checked.append(f"{column.name}: {promise}")
    return rule


def _judged(plan: Plan, rows: int) -> list[Finding]:
    """Clears columns by their extremes, then counts in those that are left, rule by rule."""
    config: dict[str, Any] = {"threads": _threads(), "enable_external_access": "false"}
    with duckdb.connect(":memory:", config=config) as engine:
        engine.register("data", pa.table(plan.columns))
        cleared = _cleared(plan, rows, engine)
        findings = []
        for name, rules in plan.rules.items():
            if name in cleared:
                continue
            # A query on a wide table costs by its width. Only rows that break something reach the counters.
            engine.register("part", pa.table({name: plan.columns[name]}))
            where = " OR ".join(f"({rule.broken})" for rule in rules)
            sums = ", ".join(f"count(*) FILTER (WHERE {rule.broken})" for rule in rules)
            counts = engine.execute(f"SELECT {sums} FROM part WHERE {where}").fetchall()[0]  # noqa: S608
            for rule, count in zip(rules, counts, strict=True):
                if count and count > rule.allowed * rows:
                    findings.append(_finding(rule, count, rows, engine))
    return findings


def _cleared(plan: Plan, rows: int, engine: duckdb.DuckDBPyConnection) -> set[str]:
    cleared: set[str] = set()
    names = [name for name in plan.rules if name in plan.bounds]
    for start in range(0, len(names), 256):
        # Thousands of expressions in one statement cost more to plan than a second pass costs to run.
        part = names[start : start + 256]
        wanted = ", ".join(_summary(name, plan.bounds[name]) for name in part)
        row = engine.execute(f"SELECT {wanted} FROM data").fetchall()[0]  # noqa: S608
        for place, name in enumerate(part):
            known, low, high = row[3 * place : 3 * place + 3]
            bounds = plan.bounds[name]
            gaps = rows - known <= plan.rules[name][0].column.missing_max * rows
            # NaN is the greatest number of all to DuckDB, so that `high` betrays it.
            within = bounds is None or low is None or (low >= bounds[0] and high <= bounds[1])
            if gaps and within:
                cleared.add(name)
    return cleared


def _summary(name: str, bounds: tuple[float, float] | None) -> str:
    column = quoted(name)
    return f"count({column}), " + ("NULL, NULL" if bounds is None else f"min({column}), max({column})")


def _finding(rule: Rule, count: int, rows: int, engine: duckdb.DuckDBPyConnection) -> Finding:
    if rule.name == "missing":
        return _missing_finding(rule, count, rows)
    query = f"SELECT {quoted(rule.column.name)} FROM part WHERE {rule.broken} LIMIT {EXAMPLES}"  # noqa: S608
    examples = tuple(shown(row[0]) for row in engine.execute(query).fetchall())
    return _broken_finding(rule, count, rows, examples)


def _missing_finding(rule: Rule, count: int, rows: int) -> Finding:
    name = rule.column.name
    share = f"{count:,} of {rows:,} rows ({count / rows:.3g}) are missing"
    return Finding(name, "missing", count, (), f"{name!r}: {share}; the contract allows {rule.allowed:.3g}")


def _broken_finding(rule: Rule, count: int, rows: int, examples: tuple[str, ...]) -> Finding:
    name = rule.column.name
    message = f"{name!r}: {count:,} of {rows:,} rows are not {rule.promise}, such as {', '.join(examples)}"
    return Finding(name, rule.name, count, examples, message)


def quoted(name: str) -> str:
    """A column's name as SQL, whatever is in it."""
    return '"' + name.replace('"', '""') + '"'


def _threads() -> int:
    return max(1, len(os.sched_getaffinity(0)))
