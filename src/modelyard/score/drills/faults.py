"""Faults in the features of logged traffic: what each does to a window."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from modelyard.core.spec import Tensors
from modelyard.data.contract import Column, Contract
from modelyard.data.live import LiveContract
from modelyard.data.tensors import features, table_of, take
from modelyard.monitor.rows import inputs, only

if TYPE_CHECKING:
    import pyarrow as pa

_PREFIX = "in_"
_STRANGER = "never-seen-before"


def logged(table: pa.Table, contract: Contract) -> Contract:
    """The contract of the features that a log holds."""
    chosen, _ = inputs(table, contract)
    return only(contract, chosen.column_names)


def breaking(column: Column) -> Any:
    """A value that breaks the column's promise; `None` when it promises nothing that one value can break."""
    if column.kind == "category":
        return _STRANGER
    if column.kind in ("number", "integer") or (
        column.kind == "tensor" and (column.datatype or "").startswith("FP")
    ):
        if column.maximum is not None:
            return column.maximum + max(abs(column.maximum), 1.0)
        if column.minimum is not None:
            return column.minimum - max(abs(column.minimum), 1.0)
        return np.nan if column.missing_max == 0 and column.kind != "tensor" else None
    return None


def breach(table: pa.Table, contract: Contract, name: str, share: float = 0.25) -> pa.Table:
    """Every so-many-th row gets a value that breaks the contract; its breaches are found as in serving."""
    column = contract.column(name)
    rows = np.arange(0, table.num_rows, max(round(1 / share), 1))

    def change(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        changed = values.copy()
        changed[rows] = breaking(column)
        return changed

    return _rechecked(_changed(table, contract, name, change), contract, rows)


def drifted(table: pa.Table, contract: Contract, name: str) -> pa.Table:
    """A feature of every row moves: numbers by twice their spread, categories to the rarest, tensors dim."""
    column = contract.column(name)

    def change(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        if column.kind in ("category", "text"):
            return _rarest(values, column)
        numbers = values.astype(np.float64)
        spread = float(np.nanstd(numbers)) or 1.0
        moved = numbers * 0.3 if column.kind == "tensor" else numbers + 2.0 * spread
        return moved.astype(values.dtype)

    return _changed(table, contract, name, change)


def altered(table: pa.Table, contract: Contract, name: str) -> pa.Table:
    """A feature is computed in another way: numbers 10 % larger, texts in capitals."""

    def change(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        if values.dtype.kind == "O":
            return np.array([[str(item).upper() + "?"] for item in values[:, 0]], dtype=object)
        return (values * 1.1 + 0.1).astype(values.dtype)

    return _changed(table, contract, name, change)


def _rarest(values: npt.NDArray[Any], column: Column) -> npt.NDArray[Any]:
    changed = values.copy()
    if column.kind == "text":
        changed[:, 0] = [str(item) * 3 + "..." for item in values[:, 0]]
        return changed
    found, counts = np.unique(values.astype(str), return_counts=True)
    seen = dict(zip(found.tolist(), counts.tolist(), strict=True))
    changed[: round(len(values) * 0.7)] = min(column.categories or ("",), key=lambda item: seen.get(item, 0))
    return changed


def _changed(
    table: pa.Table,
    contract: Contract,
    name: str,
    change: Callable[[npt.NDArray[Any]], npt.NDArray[Any]],
) -> pa.Table:
    chosen, _ = inputs(table, contract)
    tensors: Tensors = features(chosen, contract)
    tensors[name] = change(tensors[name])
    column = table_of(tensors, contract)[name]
    place = table.column_names.index(_PREFIX + name)
    return table.set_column(place, _PREFIX + name, column)


def _rechecked(table: pa.Table, contract: Contract, rows: npt.NDArray[Any]) -> pa.Table:
    import pyarrow as pa

    chosen, _ = inputs(table, contract)
    tensors = features(chosen, contract)
    live = LiveContract(contract)
    lists = table["breaches"].to_pylist()
    for row in rows.tolist():
        one = take(tensors, slice(row, row + 1))
        lists[row] = [f"{item.column}: {item.rule}" for item in live.breaches(one)]
    place = table.column_names.index("breaches")
    return table.set_column(place, "breaches", pa.array(lists, pa.list_(pa.string())))
