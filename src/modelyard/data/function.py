"""Runs the user's data function and makes a table of whatever it returns."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow as pa

from modelyard.core.errors import DataError
from modelyard.core.names import did_you_mean
from modelyard.data.physical import Table, tensor_column

_RULE = "a pyarrow Table, a dict of arrays, a pandas frame, or arrays (X, y)"


def call(path: Path, name: str) -> Table:
    """Runs a file as a module of its own name and calls a function of it without arguments.

    What the file or the function raises becomes a `DataError` that names the file and the line.
    """
    module = _module(path)
    function = getattr(module, name, None)
    if not callable(function):
        known = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise DataError(
            f"{path.name} has no function {name!r}", fix=did_you_mean(name, known), where=str(path)
        )
    with _folder_on_path(path):
        try:
            result = function()
        except Exception as error:
            raise _raised(path, name + "()", error) from error
    return table_from(result, f"{path.name}:{name}")


def table_from(result: object, what: str) -> Table:
    """A table out of what a data function may return; raises `DataError` for anything else."""
    if isinstance(result, pa.Table):
        return result
    if isinstance(result, pa.RecordBatch):
        return pa.Table.from_batches([result])
    if isinstance(result, Mapping):
        return table_of_arrays({str(name): values for name, values in result.items()}, what)
    if (
        isinstance(result, tuple | list)
        and len(result) == 2
        and all(hasattr(item, "__len__") for item in result)
    ):
        inputs, label = (_array(name, values, what) for name, values in zip("Xy", result, strict=True))
        return table_of_arrays(named(inputs, label), what)
    if type(result).__module__.partition(".")[0] == "pandas" and hasattr(result, "columns"):
        return _table_of_frame(result, what)
    raise DataError(
        f"{what} returned what is no table",
        value=type(result).__name__,
        rule=_RULE,
        fix="return one of these",
    )


def named(inputs: np.ndarray[Any, Any], label: np.ndarray[Any, Any]) -> dict[str, np.ndarray[Any, Any]]:
    """Inputs and label under the names they get: `image` for rank 3 and more, else `features`; `label`."""
    return {"image" if inputs.ndim > 2 else "features": inputs, "label": label}


def table_of_arrays(arrays: Mapping[str, Any], what: str) -> Table:
    """A table of named arrays; rank 2 and more become tensor columns, `[N, 1]` a scalar one."""
    columns = {name: _column(name, values, what) for name, values in arrays.items()}
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        raise DataError(
            f"the columns of {what} have different lengths",
            value=lengths,
            rule="one value a row in each column",
        )
    return pa.table(columns)


def _column(name: str, values: Any, what: str) -> Any:
    if isinstance(values, pa.Array | pa.ChunkedArray):
        return values
    array = _array(name, values, what)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim > 1:
        if array.dtype.kind not in "fiub":
            raise DataError(
                f"column {name!r} of {what} holds tensors of {array.dtype}", rule="tensors of numbers"
            )
        if not len(array):
            raise DataError("the data is empty", value=array.shape, rule="one row or more")
        return tensor_column(array)
    try:
        if array.dtype.kind == "O":
            # A list says what its items are; NaN among texts is a missing text.
            items = [None if isinstance(item, float) and item != item else item for item in array.tolist()]  # noqa: PLR0124
            return pa.array(items)
        return pa.array(array.astype(str) if array.dtype.kind == "U" else array)
    except (pa.ArrowException, TypeError, OverflowError) as error:
        kinds = sorted({type(item).__name__ for item in array.tolist()})
        raise DataError(
            f"column {name!r} of {what} mixes types", value=kinds, rule="one type a column",
            fix=str(error).partition("\n")[0],
        ) from error  # fmt: skip


def _array(name: str, values: Any, what: str) -> np.ndarray[Any, Any]:
    if hasattr(values, "detach"):
        values = values.detach().cpu().numpy()
    try:
        mixed = isinstance(values, list | tuple) and len({type(item) for item in values}) > 1
        # numpy would turn [1, "a"] into two texts and 2**70 into a float; Arrow judges the items instead.
        array = (
            np.array([*values, None], dtype=object)[:-1]
            if mixed and not _nested(values)
            else np.asarray(values)
        )
    except (ValueError, OverflowError) as error:
        raise DataError(
            f"column {name!r} of {what} is no array", value=type(values).__name__, rule="equally long rows",
            fix=str(error),
        ) from error  # fmt: skip
    if array.ndim == 0:
        raise DataError(f"column {name!r} of {what} is no array", value=values, rule="one value a row")
    return array


def _nested(values: Any) -> bool:
    return any(isinstance(item, list | tuple | np.ndarray) for item in values)


def _table_of_frame(frame: Any, what: str) -> Table:
    names = [str(name) for name in frame.columns]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise DataError(f"{what} has two columns of one name", value=twice, rule="each column name once")
    try:
        return pa.Table.from_pandas(frame.set_axis(names, axis=1), preserve_index=False)
    except (pa.ArrowException, TypeError, OverflowError) as error:
        raise DataError(
            f"{what} has a column that mixes types",
            value=" ".join(map(str, error.args)),
            rule="one type a column",
        ) from error


def _module(path: Path) -> ModuleType:
    # The digest keeps two projects' data.py apart, and the same file in a later state from an earlier one.
    digest = hashlib.sha256(str(path.resolve()).encode() + b"\0" + path.read_bytes()).hexdigest()[:12]
    name = f"modelyard_user_{path.stem}_{digest}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise DataError(f"{path.name} is no Python file", value=str(path))
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    with _folder_on_path(path):
        try:
            spec.loader.exec_module(module)
        except Exception as error:
            sys.modules.pop(name, None)
            raise _raised(path, "the file", error) from error
    return module


class _folder_on_path:  # noqa: N801
    """Lets the user's file import its neighbours while it runs.

    No bytecode is written, so that an edit within the same second is seen.
    """

    def __init__(self, path: Path) -> None:
        self._folder = str(path.resolve().parent)
        self._flag = sys.dont_write_bytecode

    def __enter__(self) -> None:
        self._flag, sys.dont_write_bytecode = sys.dont_write_bytecode, True
        sys.path.insert(0, self._folder)

    def __exit__(self, *_: object) -> None:
        sys.dont_write_bytecode = self._flag
        sys.path.remove(self._folder)


def _raised(path: Path, what: str, error: Exception) -> DataError:
    line: int | None = error.lineno if isinstance(error, SyntaxError) else None
    for frame in traceback.extract_tb(error.__traceback__):
        if Path(frame.filename).resolve() == path.resolve():
            line = frame.lineno
    if isinstance(error, DataError):
        error.where = error.where or f"{path}:{line}"
        return error
    return DataError(
        f"{what} raised {type(error).__name__}: {error}",
        fix="correct the file; the traceback's last line in it is named here",
        where=f"{path}:{line}" if line is not None else str(path),
    )
