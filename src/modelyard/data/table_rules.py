"""The contract's rules on a table as a whole: names, key, classes, freshness. Findings go to the plan."""

from __future__ import annotations

import math

import pyarrow as pa
import pyarrow.compute as pc

from modelyard.core.names import did_you_mean
from modelyard.core.unit import seconds, show_seconds
from modelyard.data.contract import Contract
from modelyard.data.findings import Finding
from modelyard.data.physical import Table, as_text, fits
from modelyard.data.validation_plan import EXAMPLES, Plan, shown


def check_names(table: Table, contract: Contract, plan: Plan, label: bool) -> None:
    """The contract's columns are there, no others; an ignored one may be absent, the label unless `label`."""
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


def check_key(table: Table, contract: Contract, plan: Plan) -> None:
    """No two rows share a key."""
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
    examples = tuple(shown(item["values"]) for item in several[:EXAMPLES].to_pylist())
    plan.findings.append(
        Finding(
            key.name, "unique", repeated, examples,
            f"{key.name!r}: {repeated:,} rows share a key with another row, such as {', '.join(examples)}",
        )
    )  # fmt: skip


def check_classes(table: Table, contract: Contract, plan: Plan) -> None:
    """A classification's label has two classes or more."""
    label = contract.label
    if contract.task != "classification" or len(contract.labels) < 2 or label.name not in table.column_names:
        return
    values = table.column(label.name)
    if not fits(values.type, label.kind) or len(values) < 2:
        return
    plan.checked.append(f"{label.name}: two classes or more")
    # Two classes among the first rows settle it without reading the rest.
    few = pc.unique(as_text(values[:1000])).to_pylist()
    classes = {value for value in few if value}
    if len(classes) < 2:
        classes = {value for value in pc.unique(as_text(values)).to_pylist() if value}
    if len(classes) == 1:
        only = classes.pop()
        message = f"{label.name!r}: every row has the same class, {only!r}"
        plan.findings.append(Finding(label.name, "one_class", len(values), (only,), message))


def check_freshness(table: Table, contract: Contract, plan: Plan, now: float | None) -> None:
    """The newest row, by the order column, is as young at `now` as the contract promises."""
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
        told = "unknown" if newest is None else show_seconds(age)
        message = f"the newest row by {order.name!r} is {told} old; the contract allows {contract.freshness}"
        plan.findings.append(Finding(order.name, "freshness", 0, (), message))
