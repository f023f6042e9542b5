"""Plain rows, as people send them in JSON, to tensors; every refusal names the row and the column."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from modelyard.core.errors import RequestError
from modelyard.core.names import did_you_mean
from modelyard.core.spec import Tensors, numpy_type
from modelyard.data.contract import Column, Contract

_LARGEST = float(np.finfo(np.float32).max)


def from_rows(rows: Sequence[Mapping[str, Any]], contract: Contract) -> Tensors:
    """The rows' features as the model's inputs; raises `RequestError` at the first wrong value.

    A number may be an int or a float, a boolean true, false, 0 or 1, a category its text or the number
    or boolean that reads the same, a tensor nested lists of its shape. A feature may be null or left out
    where the contract allows any of it to be missing. Columns that the contract knows but no model takes
    (key, label, ignored) are accepted and not looked at; columns it does not know are refused. Ranges and
    categories are not checked here: see `LiveContract`.

    >>> from modelyard.data.contract import Column, Contract
    >>> c = Contract("t", (Column("x", "number"), Column("y", "number", role="label")))
    >>> from_rows([{"x": 1}, {"x": 2.5}], c)["x"].tolist()
    [[1.0], [2.5]]
    """
    if not isinstance(rows, list | tuple):
        raise RequestError("rows is not a list", value=rows, rule='"rows" is a list of objects', where="rows")
    if not rows:
        raise RequestError("there is no row", rule="one row or more", where="rows")
    known = {column.name for column in contract.columns}
    for index, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise RequestError(
                "a row is not an object", value=row, rule='{"column": value, ...}', where=f"rows[{index}]"
            )
        if not known.issuperset(row):
            _unknown(row, index, contract)
    return {column.name: _tensor(rows, column) for column in contract.features}


def _unknown(row: Mapping[str, Any], index: int, contract: Contract) -> None:
    known = [column.name for column in contract.columns]
    name = next(name for name in row if name not in known)
    raise RequestError(
        f"there is no column {name!r}",
        rule="only the contract's columns",
        fix=did_you_mean(str(name), [column.name for column in contract.features]),
        where=f"rows[{index}]",
    )


def _tensor(rows: Sequence[Mapping[str, Any]], column: Column) -> npt.NDArray[Any]:
    if column.kind == "tensor":
        return _nested(rows, column)
    read = _READERS[column.kind]
    if column.kind in ("category", "text"):
        texts = np.empty((len(rows), 1), dtype=object)
        for index, row in enumerate(rows):
            texts[index, 0] = read(row.get(column.name), index, column)
        return texts
    numbers = [read(row.get(column.name), index, column) for index, row in enumerate(rows)]
    return np.array(numbers, dtype=np.float32).reshape(-1, 1)


def _number(value: Any, index: int, column: Column) -> float:
    kind = type(value)
    if kind is float or kind is int:
        if -_LARGEST <= value <= _LARGEST:
            return float(value)
        if kind is float and math.isnan(value):
            return _absent(index, column, value)
        raise _refused(value, index, column, "a finite number that fits single precision")
    if value is None:
        return _absent(index, column, value)
    raise _refused(value, index, column, "a number", _unquote(value))


def _integer(value: Any, index: int, column: Column) -> float:
    number = _number(value, index, column)
    if math.isnan(number) or number == math.floor(number):
        return number
    raise _refused(value, index, column, "a whole number")


def _boolean(value: Any, index: int, column: Column) -> float:
    if value is None:
        return _absent(index, column, value)
    if value is True or value is False or (type(value) in (int, float) and value in (0, 1)):
        return float(value)
    raise _refused(value, index, column, "true or false")


def _category(value: Any, index: int, column: Column) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float) and math.isfinite(value):
        return str(int(value)) if value == math.floor(value) else repr(value)
    return _text(value, index, column)


def _text(value: Any, index: int, column: Column) -> str:
    if isinstance(value, str) and value:
        return value
    if value is None or value == "":
        _absent(index, column, value)
        return ""
    raise _refused(value, index, column, "a text")


_READERS = {
    "number": _number,
    "integer": _integer,
    "boolean": _boolean,
    "category": _category,
    "text": _text,
}


def _nested(rows: Sequence[Mapping[str, Any]], column: Column) -> npt.NDArray[Any]:
    dtype = numpy_type(column.datatype or "FP32")
    shape = column.shape or ()
    result = np.empty((len(rows), *shape), dtype=dtype)
    for index, row in enumerate(rows):
        value = row.get(column.name)
        if value is None:
            _absent(index, column, value)
            if dtype.kind != "f":
                raise _refused(value, index, column, f"{column.datatype} has no value for missing")
            result[index] = np.nan
            continue
        result[index] = _array(value, index, column, shape, dtype)
    return result


def _array(
    value: Any, index: int, column: Column, shape: tuple[int, ...], dtype: np.dtype[Any]
) -> npt.NDArray[Any]:
    rule = f"lists of numbers of shape {list(shape)}"
    if not isinstance(value, list | tuple | np.ndarray):
        raise _refused(value, index, column, rule)
    try:
        array = np.asarray(value)
    except (ValueError, OverflowError) as error:
        raise _refused(value, index, column, rule, "the lists have different lengths") from error
    if array.shape != shape:
        raise _refused(list(array.shape), index, column, rule, "this is the shape that was sent")
    if array.dtype.kind not in "fiub":
        raise _refused(value, index, column, rule)
    if dtype.kind == "f":
        with np.errstate(over="ignore"):
            converted = array.astype(dtype)
        if not np.isfinite(converted).all():
            raise _refused(value, index, column, f"finite numbers that fit {column.datatype}")
        return converted
    if dtype.kind == "b":
        if not ((array == 0) | (array == 1)).all():
            raise _refused(value, index, column, "true and false")
        return array.astype(dtype)
    limits = np.iinfo(dtype)
    if (array.dtype.kind == "f" and (array != np.floor(array)).any()) or not (
        (array >= limits.min) & (array <= limits.max)
    ).all():
        raise _refused(value, index, column, f"whole numbers that fit {column.datatype}")
    return array.astype(dtype)


def _absent(index: int, column: Column, value: Any) -> float:
    if column.missing_max == 0:
        raise _refused(
            value, index, column, "a value in every row", "the contract allows no missing value here"
        )
    return math.nan


def _unquote(value: Any) -> str | None:
    if isinstance(value, str):
        try:
            float(value)
        except ValueError:
            return None
        return "send the number without quotes"
    return None


def _refused(value: Any, index: int, column: Column, rule: str, fix: str | None = None) -> RequestError:
    what = f"column {column.name!r} is missing" if value is None else f"column {column.name!r} is wrong"
    return RequestError(what, value=value, rule=rule, fix=fix, where=f"rows[{index}]")
