"""A first contract out of a table, for people to correct, with a word about everything that was decided."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from modelyard.core.errors import ContractError, DataError
from modelyard.core.names import did_you_mean
from modelyard.data.contract import Column, Contract, Task
from modelyard.data.physical import (
    BEYOND_SINGLE,
    Table,
    as_floats,
    as_text,
    is_number,
    is_tensor,
    is_text,
    is_time,
    plain,
    tensor_datatype,
    tensor_values,
)
from modelyard.data.privacy import guess_privacy

CATEGORIES_MAX = 64
"""A text column with more distinct values than this is free text."""
CLASSES_MAX = 1000
"""A label with more distinct values than this is no class."""
MARGIN = 0.1
"""How far a range reaches beyond what was observed, as a share of the observed span on either side."""

_ID_NAME = re.compile(
    r"(?:^|[_\W])(?:id|uuid|guid|key|index|rowid|identifier)$|^unnamed|[a-z]I[dD]$", re.IGNORECASE
)
_NUMBERED = 20
_EXACT = 1 << 24


@dataclass(frozen=True, slots=True)
class Inferred:
    """A contract and, in words, what was decided on the way."""

    contract: Contract
    notes: tuple[str, ...]


def infer(
    table: Table, *, name: str, label: str, task: Task, key: str | None = None, order: str | None = None
) -> Inferred:
    """The contract that a table seems to keep.

    Ranges are the observed ones widened by `MARGIN` of their span on both sides, but not across 0, and not
    past an extreme that many values share (a natural limit such as 0 or 255). Where some values are missing,
    half as much again, and one point in a hundred, is allowed. Ids, free text, times, constants and what
    identifies people get the role ignored, each with a note. Raises `DataError` for an empty table, an
    absent or one-class label, and when no feature is left.
    """
    table = plain(table)
    if not table.num_rows or not table.num_columns:
        raise DataError("the table is empty", rule="one row and one column or more", fix="check the source")
    for role, wanted in (("label", label), ("key", key), ("order", order)):
        if wanted is not None and wanted not in table.column_names:
            raise DataError(
                f"the {role} {wanted!r} is no column", fix=did_you_mean(wanted, table.column_names)
            )
    notes: list[str] = []
    columns: list[Column] = []
    taken = {"key": key is not None, "order": order is not None}
    for column_name in table.column_names:
        values = table.column(column_name)
        if column_name == label:
            column = _label(label, values, task, notes)
        elif column_name == key:
            column = _named_key(column_name, values)
        elif column_name == order:
            column = _named_order(column_name, values)
        else:
            column = _column(column_name, values, taken, notes)
        columns.append(column)
    if not any(column.role == "feature" for column in columns):
        raise DataError(
            "no column is left that could be a feature",
            value=table.column_names,
            rule="numbers, booleans, tensors, or texts with few distinct values",
            fix="; ".join(notes) or "bring more columns",
        )
    return Inferred(Contract(name, tuple(columns)), tuple(notes))


def merge_contract(old: Contract, inferred: Contract) -> Inferred:
    """The old contract, people's edits included, with the columns that are new; what changed is in the notes.

    Columns that the data no longer has are kept: that they are gone is then a finding of `validate`.
    Raises `ContractError` when the two do not predict the same column.
    """
    if old.label.name != inferred.label.name:
        raise ContractError(
            "the contract predicts another column than the project",
            value=old.label.name,
            rule=f"the project's label is {inferred.label.name!r}",
            fix="change the role label in the contract, or the label in the project",
        )
    known = {column.name for column in old.columns}
    taken = {column.role for column in old.columns}
    notes = []
    added = []
    for column in inferred.columns:
        if column.name in known:
            continue
        if column.role in ("key", "order") and column.role in taken:
            column = replace(column, role="ignored")  # noqa: PLW2901
        notes.append(f"{column.name}: new in the data, added as {column.kind} ({column.role})")
        added.append(column)
    present = {column.name for column in inferred.columns}
    notes += [f"{column.name}: no longer in the data" for column in old.columns if column.name not in present]
    return Inferred(replace(old, columns=(*old.columns, *added)), tuple(notes))


def _label(name: str, values: pa.ChunkedArray, task: Task, notes: list[str]) -> Column:
    if is_tensor(values.type) or is_time(values.type):
        raise DataError(
            f"the label {name!r} is a {'tensor' if is_tensor(values.type) else 'time'}",
            rule="a class (text or number) or a number to predict",
        )
    if task == "regression":
        return _label_value(name, values, notes)
    text = as_text(values)
    classes = [value for value in pc.unique(text).to_pylist() if value]
    missing = len(text) - sum(pc.is_in(text, pa.array(classes, pa.string())).to_pylist())
    if len(classes) < 2:
        raise DataError(
            f"the label {name!r} has {len(classes) or 'no'} class" + ("" if len(classes) == 1 else "es"),
            value=classes,
            rule="two classes or more",
            fix="bring rows of other classes, or choose another label",
        )
    if len(classes) > CLASSES_MAX or (pa.types.is_floating(values.type) and _fractions(classes)):
        raise DataError(
            f"the label {name!r} has {len(classes):,} distinct values, which look like no classes",
            value=sorted(classes)[:3],
            rule=f"at most {CLASSES_MAX:,} classes",
            fix='use task = "regression", or choose another label',
        )
    if missing:
        notes.append(f"{name}: the label is missing in {missing:,} rows; drop them in the source")
    return Column(name, "category", "label", categories=tuple(sorted(classes, key=_numeric_first)))


def _label_value(name: str, values: pa.ChunkedArray, notes: list[str]) -> Column:
    if not is_number(values.type):
        raise DataError(
            f"the label {name!r} is not a number",
            value=str(values.type),
            rule="regression predicts a number",
            fix='use task = "classification", or choose another label',
        )
    floats = as_floats(values)
    finite = floats[np.isfinite(floats)]
    if not len(finite) or finite.min() == finite.max():
        raise DataError(
            f"the label {name!r} has {'no value' if not len(finite) else 'the same value in every row'}",
            rule="two different numbers or more",
            fix="choose another label",
        )
    if len(finite) < len(floats):
        wrong = len(floats) - len(finite)
        notes.append(f"{name}: the label is missing or infinite in {wrong:,} rows; drop them in the source")
    low, high = _range(finite, share=0.02, least=5)
    return Column(name, "number", "label", minimum=low, maximum=high)


def _named_key(name: str, values: pa.ChunkedArray) -> Column:
    kinds = [("integer", pa.types.is_integer), ("text", is_text), ("timestamp", is_time)]
    kind = next((kind for kind, holds in kinds if holds(values.type)), None)
    if kind is None:
        raise DataError(
            f"the key {name!r} is {values.type}", rule="a key is an integer, a text or a timestamp"
        )
    return Column(name, kind, "key", privacy=guess_privacy(name, _sample(values))[0])  # type: ignore[arg-type]


def _named_order(name: str, values: pa.ChunkedArray) -> Column:
    if is_time(values.type):
        return Column(name, "timestamp", "order")
    if is_number(values.type):
        return Column(name, "integer" if pa.types.is_integer(values.type) else "number", "order")
    raise DataError(
        f"the order {name!r} is {values.type}", rule="rows are ordered by a timestamp or a number"
    )


def _column(name: str, values: pa.ChunkedArray, taken: dict[str, bool], notes: list[str]) -> Column:
    if values.null_count == len(values):
        notes.append(f"{name}: ignored, every value is missing")
        return Column(name, "text", "ignored", missing_max=1.0)
    kind = values.type
    if is_tensor(kind):
        return _tensor(name, values)
    privacy, reason = guess_privacy(name, _sample(values))
    if is_time(kind):
        return _time(name, values, taken, privacy, notes)
    if is_text(kind):
        column = _text(name, values, taken, notes)
    elif pa.types.is_boolean(kind):
        column = Column(name, "boolean", missing_max=_missing(values.null_count, len(values)))
    else:
        column = _number(name, values, taken, notes)
    column = replace(column, privacy=privacy)
    if privacy != "none":
        notes.append(f"{name}: guessed to be {privacy} data, because {reason}")
    if privacy == "personal" and column.role == "feature":
        notes.append(f"{name}: ignored, because it identifies people")
        column = replace(column, role="ignored")
    if column.role == "feature" and pc.count_distinct(values).as_py() == 1 and not values.null_count:
        notes.append(f"{name}: ignored, every row has the same value, {values[0].as_py()!r}")
        column = replace(column, role="ignored")
    return column


def _number(name: str, values: pa.ChunkedArray, taken: dict[str, bool], notes: list[str]) -> Column:
    integer = pa.types.is_integer(values.type)
    floats = as_floats(values)
    finite = floats[np.isfinite(floats)]
    rate = _missing(int(np.isnan(floats).sum()), len(floats))
    if integer and not values.null_count and (_identifies(name, values) or _counts_rows(values)):
        return _id(name, "integer", taken, notes)
    if not len(finite):
        notes.append(f"{name}: ignored, it has no finite value")
        return Column(name, "number", "ignored", missing_max=1.0)
    if np.abs(finite).max() >= BEYOND_SINGLE:
        notes.append(f"{name}: ignored, its values go beyond single precision, a model's input")
        return Column(name, "number", "ignored", missing_max=1.0)
    infinite = int(np.isinf(floats).sum())
    if infinite:
        notes.append(
            f"{name}: {infinite:,} values are infinite, which breaks the contract; correct the source"
        )
    if integer and max(abs(finite.min()), abs(finite.max())) > _EXACT:
        notes.append(f"{name}: integers above {_EXACT:,} lose digits as a model's input (single precision)")
    if rate > 0.5:
        notes.append(f"{name}: mostly missing")
    low, high = _range(finite, share=0.02, least=5)
    if integer:
        low, high = math.floor(low), math.ceil(high)
    return Column(name, "integer" if integer else "number", missing_max=rate, minimum=low, maximum=high)


def _text(name: str, values: pa.ChunkedArray, taken: dict[str, bool], notes: list[str]) -> Column:
    text = as_text(values)
    distinct = [value for value in pc.unique(text).to_pylist() if value]
    filled = len(text) - text.null_count - int(pc.sum(pc.equal(text, "")).as_py() or 0)
    rate = _missing(len(text) - filled, len(text))
    if not distinct:
        notes.append(f"{name}: ignored, every value is empty")
        return Column(name, "text", "ignored", missing_max=1.0)
    if filled == len(text) and _identifies(name, values):
        return _id(name, "text", taken, notes)
    if len(distinct) == filled and filled >= 20:
        notes.append(f"{name}: ignored, every text is different: an id or free text")
        return Column(name, "text", "ignored", missing_max=rate)
    if len(distinct) > CATEGORIES_MAX or (len(distinct) > 10 and len(distinct) > filled / 2):
        notes.append(f"{name}: ignored, {len(distinct):,} different texts: free text")
        return Column(name, "text", "ignored", missing_max=rate)
    return Column(name, "category", missing_max=rate, categories=tuple(sorted(distinct)))


def _identifies(name: str, values: pa.ChunkedArray) -> bool:
    return _ID_NAME.search(name) is not None and pc.count_distinct(values).as_py() == len(values) > 1


def _counts_rows(values: pa.ChunkedArray) -> bool:
    """Whether a column only numbers the rows: n, n + 1, n + 2, ... in order, for twenty rows or more."""
    if len(values) < _NUMBERED:
        return False
    first = values[0].as_py()
    numbers = pa.array(np.arange(first, first + len(values)))
    return bool(pc.all(pc.equal(values.cast(pa.int64()), numbers)).as_py())


def _id(name: str, kind: Any, taken: dict[str, bool], notes: list[str]) -> Column:
    if taken["key"]:
        notes.append(f"{name}: ignored, every value is different: an id")
        return Column(name, kind, "ignored")
    taken["key"] = True
    notes.append(f"{name}: taken for the key, every value is different")
    return Column(name, kind, "key")


def _time(
    name: str, values: pa.ChunkedArray, taken: dict[str, bool], privacy: Any, notes: list[str]
) -> Column:
    rate = _missing(values.null_count, len(values))
    if taken["order"] or rate or privacy == "personal":
        notes.append(f"{name}: ignored, a time; derive numbers from it in the source if it should count")
        return Column(name, "timestamp", "ignored", missing_max=rate, privacy=privacy)
    taken["order"] = True
    notes.append(f"{name}: taken for the order of the rows; derive numbers from it if it should count")
    return Column(name, "timestamp", "order", privacy=privacy)


def _tensor(name: str, values: pa.ChunkedArray) -> Column:
    array, missing = tensor_values(values)
    flat = array[~missing].reshape(-1) if missing.any() else array.reshape(-1)
    unknown = missing
    if flat.dtype.kind == "f" and not np.isfinite(flat.sum()):
        unknown = missing | np.isnan(array.reshape(len(array), math.prod(array.shape[1:]))).any(axis=1)
        flat = flat[np.isfinite(flat)]
    low, high = _range(flat, share=0.001, least=100) if flat.size else (None, None)
    if flat.size and flat.dtype.kind in "iu" and low is not None and high is not None:
        limits = np.iinfo(flat.dtype)
        low, high = max(math.floor(low), limits.min), min(math.ceil(high), limits.max)
    return Column(
        name,
        "tensor",
        missing_max=_missing(int(unknown.sum()), len(array)),
        minimum=None if flat.dtype.kind == "b" else low,
        maximum=None if flat.dtype.kind == "b" else high,
        shape=tuple(array.shape[1:]),
        datatype=tensor_datatype(values.type),
    )


def _range(values: np.ndarray[Any, Any], *, share: float, least: int) -> tuple[float, float]:
    """The observed range, widened; see `infer`."""
    low, high = float(values.min()), float(values.max())
    margin = (high - low) * MARGIN if high > low else abs(high) * MARGIN
    needed = max(share * len(values), least)
    wide_low, wide_high = low - margin, high + margin
    if low >= 0:
        wide_low = max(wide_low, 0.0)
    if high <= 0:
        wide_high = min(wide_high, 0.0)
    if np.count_nonzero(values == values.min()) >= needed:
        wide_low = low
    if np.count_nonzero(values == values.max()) >= needed:
        wide_high = high
    return _rounded(wide_low, low, up=False), _rounded(wide_high, high, up=True)


def _rounded(wide: float, observed: float, *, up: bool) -> float:
    """The bound with three digits, because people read it, but never inside of what was observed."""
    if wide == observed or not math.isfinite(wide):
        return observed
    short = float(f"{wide:.3g}")
    return max(short, observed) if up else min(short, observed)


def _missing(missing: int, rows: int) -> float:
    if not missing:
        return 0.0
    return min(1.0, math.ceil((1.5 * missing / rows + 0.01) * 100 - 1e-9) / 100)


def _sample(values: pa.ChunkedArray) -> list[str]:
    if not is_text(values.type):
        return []
    return [text for text in as_text(values.drop_null()[:200]).to_pylist() if text]


def _fractions(classes: list[str]) -> bool:
    return any(not value.lstrip("-").isdigit() for value in classes)


def _numeric_first(value: str) -> tuple[int, float, str]:
    try:
        number = float(value)
    except ValueError:
        return (1, 0.0, value)
    return (0, number, value) if math.isfinite(number) else (1, 0.0, value)
