"""How Arrow's types stand for the contract's kinds: text, numbers and tensors out of Arrow columns."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from modelyard.core.errors import DataError
from modelyard.core.spec import datatype_of

Table: TypeAlias = pa.Table

BEYOND_SINGLE = 3.4028235677973366e38
"""From here on a double rounds to infinity in single precision, which is what models are given."""


def is_tensor(kind: pa.DataType) -> bool:
    """Whether a type is Arrow's fixed-shape tensor."""
    return isinstance(kind, pa.FixedShapeTensorType)


def is_text(kind: pa.DataType) -> bool:
    """Whether a type holds text, plain or dictionary-encoded."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def is_number(kind: pa.DataType) -> bool:
    """Whether a type holds integers, floats or decimals."""
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def is_time(kind: pa.DataType) -> bool:
    """Whether a type holds dates or timestamps."""
    return bool(pa.types.is_timestamp(kind) or pa.types.is_date(kind))


def fits(kind: pa.DataType, wanted: str) -> bool:
    """Whether a column of this Arrow type can hold what the contract calls `wanted`.

    A category may come as text, integers, booleans or whole floats; a boolean as 0 and 1; an integer as
    whole floats. A column of Arrow's null type fits everything: it is all missing.

    >>> fits(pa.int64(), "category"), fits(pa.string(), "number")
    (True, False)
    """
    if pa.types.is_null(kind):
        return wanted != "tensor"
    if wanted in ("number", "integer"):
        return is_number(kind)
    if wanted == "boolean":
        return bool(pa.types.is_boolean(kind)) or is_number(kind)
    if wanted == "category":
        return is_text(kind) or bool(pa.types.is_boolean(kind)) or is_number(kind)
    return {"text": is_text, "timestamp": is_time, "tensor": is_tensor}[wanted](kind)


def as_text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column as text: integers and whole floats as digits, booleans as true and false, NaN as null.

    >>> as_text(pa.chunked_array([[3.0, 0.5, None]])).to_pylist()
    ['3', '0.5', None]
    """
    kind = column.type
    if pa.types.is_dictionary(kind):
        return as_text(pc.cast(column, kind.value_type))
    if pa.types.is_string(kind):
        return column
    if pa.types.is_floating(kind):
        column = pc.cast(column, pa.float64())
        known = pc.if_else(pc.is_nan(column), pa.scalar(None, pa.float64()), column)
        small = pc.and_(pc.equal(pc.floor(known), known), pc.less(pc.abs(known), 2.0**53))
        whole = pc.cast(pc.cast(pc.if_else(small, known, None), pa.int64()), pa.string())
        return pc.coalesce(whole, pc.cast(known, pa.string()))
    return pc.cast(column, pa.string())


def as_floats(column: pa.ChunkedArray, dtype: type[np.floating[Any]] = np.float64) -> npt.NDArray[Any]:
    """A number, boolean or all-null column as floats; missing is NaN."""
    kind = column.type
    if pa.types.is_null(kind):
        return np.full(len(column), np.nan, dtype)
    if pa.types.is_boolean(kind):
        column = pc.cast(column, pa.uint8())
    elif pa.types.is_decimal(kind):
        column = pc.cast(column, pa.float64())
    if column.null_count:
        column = pc.cast(column, pa.float64(), safe=False)
        values = column.fill_null(float("nan")).to_numpy()
    else:
        values = column.to_numpy()
    with np.errstate(over="ignore"):
        # A double beyond single precision becomes infinite, which every check of ranges reports.
        return np.asarray(values).astype(dtype, copy=False)


def as_objects(column: pa.ChunkedArray) -> npt.NDArray[Any]:
    """A column as an object array of `str`; missing is the empty text."""
    if pa.types.is_null(column.type):
        return np.full(len(column), "", object)
    values = as_text(column)
    if values.null_count:
        values = values.fill_null("")
    return np.asarray(values.to_numpy(zero_copy_only=False), dtype=object)


def tensor_column(values: npt.NDArray[Any]) -> pa.ExtensionArray:
    """An array `[N, *S]` as a fixed-shape tensor column of N rows; no copy where the memory is contiguous.

    >>> tensor_column(np.zeros((2, 3), np.float32)).type.shape
    [3]
    """
    shape = values.shape[1:]
    flat = pa.array(np.ascontiguousarray(values).reshape(-1))
    width = int(np.prod(shape))
    if width == 0:
        raise DataError("a tensor column is empty", value=values.shape, rule="each dimension is 1 or more")
    storage = pa.FixedSizeListArray.from_arrays(flat, width)
    return pa.ExtensionArray.from_storage(pa.fixed_shape_tensor(flat.type, list(shape)), storage)


def tensor_datatype(kind: Any) -> str:
    """The Open Inference Protocol datatype of a fixed-shape tensor type's elements."""
    return datatype_of(np.dtype(kind.value_type.to_pandas_dtype()))


def tensor_values(column: pa.ChunkedArray) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
    """A tensor column as an array `[N, *S]` and a mask `[N]` of the rows that are null.

    Without nulls, in one chunk, the array is a view of the column's memory. Null rows hold NaN, or 0
    where the datatype has no NaN.
    """
    kind = column.type
    shape = tuple(kind.shape)
    width = int(np.prod(shape))
    array = column.combine_chunks()
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], kind.storage_type)
    storage = array.storage if isinstance(array, pa.ExtensionArray) else array
    flat = storage.values.slice(storage.offset * width, len(storage) * width)
    values = flat.to_numpy(zero_copy_only=False).reshape(len(storage), *shape)
    missing = np.asarray(storage.is_null().to_numpy(zero_copy_only=False), dtype=np.bool_)
    if missing.any():
        values = values.copy()
        values[missing] = np.nan if values.dtype.kind == "f" else 0
    return values, missing


def plain(table: Table) -> Table:
    """The table without metadata, dictionaries decoded, nested lists of numbers as tensors.

    Raises `DataError` for two columns of one name, and for types that no contract can describe.
    """
    names = table.column_names
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise DataError(
            "two columns share a name", value=twice, rule="each column name once", fix="rename one of them"
        )
    columns = [_plain_column(name, column) for name, column in zip(names, table.columns, strict=True)]
    return pa.table(columns, names=names) if columns else table


def _plain_column(name: str, column: pa.ChunkedArray) -> pa.ChunkedArray:
    kind = column.type
    if pa.types.is_dictionary(kind):
        return as_text(column) if is_text(kind) else pc.cast(column, kind.value_type)
    if is_text(kind):
        return column if pa.types.is_string(kind) else pc.cast(column, pa.string())
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return _tensor_of_lists(name, column)
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        try:
            return pc.cast(column, pa.string())
        except pa.ArrowInvalid as error:
            raise DataError(
                f"column {name!r} holds bytes that are not UTF-8 text", rule="text is UTF-8"
            ) from error
    if is_tensor(kind) and kind.permutation is not None:
        # One row-major layout for all, whatever the writer's order of dimensions was.
        array = pa.concat_arrays(column.chunks)
        return pa.chunked_array([tensor_column(array.to_numpy_ndarray())])
    known = is_number(kind) or is_time(kind) or is_tensor(kind) or pa.types.is_boolean(kind)
    if not known and not pa.types.is_null(kind):
        raise DataError(
            f"column {name!r} has a type that no contract describes",
            value=str(kind),
            rule="numbers, booleans, text, dates and timestamps, or tensors of numbers",
            fix="convert or drop the column in the source",
        )
    return column


def _tensor_of_lists(name: str, column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Lists of numbers, equally long in every row, as a tensor column."""
    inner = column.type
    depth = 0
    while pa.types.is_list(inner) or pa.types.is_large_list(inner) or pa.types.is_fixed_size_list(inner):
        inner = inner.value_type
        depth += 1
    if not (pa.types.is_integer(inner) or pa.types.is_floating(inner) or pa.types.is_boolean(inner)):
        raise DataError(
            f"column {name!r} holds lists of {inner}",
            rule="lists of numbers",
            fix="drop or convert the column",
        )
    if column.null_count or len(column) == 0:
        raise DataError(
            f"column {name!r} holds lists, some of which are missing", value=column.null_count,
            rule="a column of lists has a list in every row", fix="drop those rows in the source",
        )  # fmt: skip
    array = column.combine_chunks()
    shape: list[int] = []
    for _ in range(depth):
        lengths = pc.list_value_length(array)
        low, high = pc.min_max(lengths).values()
        if low.as_py() != high.as_py() or not low.as_py():
            raise DataError(
                f"column {name!r} holds lists of different lengths",
                value=f"{low} to {high} numbers", rule="every row's list has the same length, 1 or more",
                fix="pad the lists, or make each number its own column",
            )  # fmt: skip
        shape.append(low.as_py())
        array = array.flatten()
    if array.null_count:
        array = pc.cast(array, pa.float64()).fill_null(float("nan"))
    values = array.to_numpy(zero_copy_only=False).reshape(len(column), *shape)
    return pa.chunked_array([tensor_column(values)])
