"""From a table to the tensors that a model takes, and back: the one place where the two shapes meet."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from modelyard.core.errors import DataError
from modelyard.core.names import did_you_mean
from modelyard.core.spec import Tensors, numpy_type
from modelyard.data.contract import Column, Contract
from modelyard.data.physical import (
    Table,
    as_floats,
    as_objects,
    as_text,
    fits,
    is_tensor,
    tensor_column,
    tensor_values,
)
from modelyard.data.rows import from_rows

__all__ = ["features", "from_rows", "table_of", "take", "targets"]


def features(table: Table, contract: Contract) -> Tensors:
    """The feature columns as the model's inputs, in the contract's order.

    Numbers, integers and booleans become float32 `[N, 1]` (missing is NaN), categories and texts object
    `[N, 1]` of `str` (missing is the empty text), tensors `[N, *S]` of their own datatype. Raises
    `DataError` when a column is absent or of a type that cannot become that; breaking a range or a
    list of categories is not an error here but a finding of `validate`.

    >>> from modelyard.data.contract import Column, Contract
    >>> c = Contract("t", (Column("x", "number"), Column("y", "number", role="label")))
    >>> features(pa.table({"x": [1, None], "y": [0.0, 1.0]}), c)["x"].tolist()
    [[1.0], [nan]]
    """
    return {column.name: _feature(_get(table, column), column) for column in contract.features}


def targets(table: Table, contract: Contract) -> npt.NDArray[Any]:
    """The label as the target: int64 `[N]` indices into `contract.labels`, or float64 `[N]`.

    Raises `DataError` when a label is missing or not one of the classes: nothing can be learnt from, or
    measured on, such a row.
    """
    label = contract.label
    column = _get(table, label)
    if contract.task == "regression":
        values = as_floats(column)
        wrong = int(np.count_nonzero(~np.isfinite(values)))
        if wrong:
            raise DataError(
                f"the label {label.name!r} is missing or infinite in {wrong:,} of {len(values):,} rows",
                rule="every row has a label that is a finite number",
                fix="drop those rows in the source",
            )
        return values
    text = as_text(column)
    indices = pc.index_in(text, value_set=pa.array(contract.labels, pa.string()))
    if indices.null_count:
        bad = pc.unique(text.filter(indices.is_null())).to_pylist()[:3]
        raise DataError(
            f"the label {label.name!r} is not one of the classes in {indices.null_count:,} of "
            f"{len(text):,} rows",
            value=bad,
            rule="one of " + ", ".join(contract.labels[:10]) + (", ..." if len(contract.labels) > 10 else ""),
            fix="correct the rows, or add the class to the contract's categories",
        )
    return np.asarray(indices.to_numpy(), dtype=np.int64)


def take(tensors: Tensors, indices: npt.NDArray[Any] | slice) -> Tensors:
    """The rows at those indices (or where a boolean mask is true, or in a slice) of every tensor."""
    return {name: values[indices] for name, values in tensors.items()}


def table_of(tensors: Tensors, contract: Contract) -> Table:
    """The inverse of `features`: a table with the contract's feature columns, missing values null.

    Numbers are float32, integers int64 (float32 if some are not whole), booleans bool (float32 if other
    than 0 and 1), categories and texts string. Raises `DataError` when a tensor is absent.
    """
    return pa.table({column.name: column_of(tensors, column) for column in contract.features})


def column_of(tensors: Tensors, column: Column) -> pa.Array:
    """One column of `table_of`; raises `DataError` when its tensor is absent."""
    values = tensors.get(column.name)
    if values is None:
        raise DataError(f"there is no tensor {column.name!r}", fix=did_you_mean(column.name, tensors))
    return _column_of(values, column)


def _get(table: Table, column: Column) -> pa.ChunkedArray:
    if column.name not in table.column_names:
        raise DataError(
            f"the table has no column {column.name!r}", fix=did_you_mean(column.name, table.column_names)
        )
    values = table.column(column.name)
    if not fits(values.type, column.kind):
        raise DataError(
            f"column {column.name!r} cannot be read as {column.kind}",
            value=str(values.type),
            rule=f"the contract says {column.kind}",
            fix="correct the source, or the kind in the contract",
        )
    return values


def _feature(values: pa.ChunkedArray, column: Column) -> npt.NDArray[Any]:
    if column.kind in ("number", "integer", "boolean"):
        return as_floats(values, np.float32).reshape(-1, 1)
    if column.kind in ("category", "text"):
        return as_objects(values).reshape(-1, 1)
    return _tensor(values, column)


def _tensor(values: pa.ChunkedArray, column: Column) -> npt.NDArray[Any]:
    if not is_tensor(values.type) or tuple(values.type.shape) != column.shape:
        shape = list(values.type.shape) if is_tensor(values.type) else None
        raise DataError(
            f"the tensors of column {column.name!r} have another shape",
            value=shape,
            rule=f"the contract says {list(column.shape or ())}",
        )
    array, missing = tensor_values(values)
    dtype = numpy_type(column.datatype or "FP32")
    if missing.any() and dtype.kind != "f":
        raise DataError(
            f"column {column.name!r} lacks a tensor in {int(missing.sum()):,} rows",
            rule=f"{column.datatype} has no value for missing",
            fix="drop those rows in the source",
        )
    return array.astype(dtype, copy=False)


def _column_of(values: npt.NDArray[Any], column: Column) -> pa.Array:
    if column.kind == "tensor":
        return tensor_column(values)
    flat = values.reshape(-1)
    if column.kind in ("category", "text"):
        return pa.array([value or None for value in flat], pa.string())
    missing = np.isnan(flat)
    known = flat[~missing]
    if (
        column.kind == "integer"
        and bool((known == np.floor(known)).all())
        and bool((abs(known) < 2**62).all())
    ):
        return pa.array(np.where(missing, 0, flat).astype(np.int64), mask=missing)
    if column.kind == "boolean" and bool(((known == 0) | (known == 1)).all()):
        return pa.array(np.where(missing, 0, flat).astype(np.bool_), mask=missing)
    return pa.array(flat.astype(np.float32, copy=False), mask=missing)
