"""Tables out of files: CSV, Parquet, Arrow IPC and npz. Whatever is wrong in one becomes a `DataError`."""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.ipc
import pyarrow.parquet as pq

from modelyard.core.errors import DataError
from modelyard.data.function import named, table_of_arrays
from modelyard.data.physical import Table

NULLS = ("", "NA", "N/A", "n/a", "NaN", "nan", "null", "NULL", "None", "#N/A")
"""What a CSV file means by nothing. Quoted text is text, except that "" is missing too."""


def read_csv(path: Path) -> Table:
    """A CSV file with a header; UTF-8 (a byte-order mark is skipped), else Windows-1252.

    The separator is the one of comma, semicolon, tab and bar that the header has most of. Types are
    those that fit every row; numbers with leading zeros, such as postal codes, stay text.
    """
    data = path.read_bytes()
    if not data.strip():
        raise DataError("the file is empty", rule="a header and one row or more")
    encoding = _encoding(data)
    header = data[: data.find(b"\n") if b"\n" in data else len(data)].decode(encoding, "replace")
    separator = max(",;\t|", key=header.count)
    ragged: list[tuple[int | None, int, int]] = []

    def note(row: pa.csv.InvalidRow) -> str:
        ragged.append((row.number, row.expected_columns, row.actual_columns))
        return "skip"

    parse = pa.csv.ParseOptions(delimiter=separator, newlines_in_values=True, invalid_row_handler=note)
    # One thread counts the lines, so that a wrong row can be named; blocks bound its memory.
    read = pa.csv.ReadOptions(encoding=encoding, use_threads=False)
    table = _parsed(data, read, parse, {})
    if ragged:
        number, expected, actual = ragged[0]
        raise DataError(
            f"line {number or '?'} has {actual} values"
            + (f", and {len(ragged) - 1} more lines are ragged" if len(ragged) > 1 else ""),
            value=actual,
            rule=f"{expected} values a line, as in the header",
            fix="quote values that hold the separator or a line break",
        )
    zeros = [name for name in _whole(table) if _leading_zeros(data, read, parse, name)]
    return _parsed(data, read, parse, dict.fromkeys(zeros, pa.string())) if zeros else table


def _whole(table: Table) -> list[str]:
    """Columns that were read as integers."""
    names = table.column_names
    return [
        field.name
        for field in table.schema
        if pa.types.is_integer(field.type) and names.count(field.name) == 1
    ]


def _leading_zeros(data: bytes, read: pa.csv.ReadOptions, parse: pa.csv.ParseOptions, name: str) -> bool:
    if re.search(rb"(?:^|[,;\t|\n\"])0\d", data) is None:
        return False
    import pyarrow.compute as pc

    options = pa.csv.ConvertOptions(include_columns=[name], column_types={name: pa.string()})
    column = pa.csv.read_csv(pa.BufferReader(data), read, parse, options).column(name)
    return bool(pc.any(pc.match_substring_regex(column, r"^0\d")).as_py())


def _parsed(
    data: bytes, read: pa.csv.ReadOptions, parse: pa.csv.ParseOptions, types: Mapping[str, pa.DataType]
) -> Table:
    convert = pa.csv.ConvertOptions(
        null_values=list(NULLS), strings_can_be_null=True, quoted_strings_can_be_null=True,
        column_types=types, true_values=["true", "True", "TRUE"], false_values=["false", "False", "FALSE"],
    )  # fmt: skip
    try:
        return pa.csv.read_csv(pa.BufferReader(data), read, parse, convert)
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise _broken(error, "CSV") from error


def _encoding(data: bytes) -> str:
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16"
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return "cp1252"
    return "utf-8"


def read_parquet(path: Path) -> Table:
    """A Parquet file; Arrow's tensor columns come back as such."""
    try:
        return pq.ParquetFile(path).read(use_threads=False)
    except (pa.ArrowException, OSError) as error:
        raise _broken(error, "Parquet") from error


def read_arrow(path: Path) -> Table:
    """An Arrow IPC file or stream."""
    data = path.read_bytes()
    try:
        if data.startswith(b"ARROW1"):
            return pa.ipc.open_file(pa.BufferReader(data)).read_all()
        return pa.ipc.open_stream(pa.BufferReader(data)).read_all()
    except (pa.ArrowException, OSError) as error:
        raise _broken(error, "Arrow IPC") from error


def read_npz(path: Path) -> Table:
    """Named numpy arrays; a pair called X (or x) and y becomes `image` or `features`, and `label`.

    Arrays of Python objects are refused: reading them would run code from the file.
    """
    try:
        # Our own handle: numpy leaves its one open when the archive is broken.
        with path.open("rb") as file:
            archive = np.load(file, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise ValueError("one array without a name; save it with numpy.savez")  # noqa: TRY301
            arrays = {name: archive[name] for name in archive.files}
    except (ValueError, OSError, EOFError, KeyError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise _broken(error, "npz without objects") from error
    for inputs in ("X", "x"):
        if set(arrays) == {inputs, "y"}:
            arrays = named(arrays[inputs], arrays["y"])
    return table_of_arrays(arrays, path.name)


def _broken(error: Exception, kind: str) -> DataError:
    return DataError(
        f"the file is not readable as {kind}", value=str(error).partition("\n")[0], fix="check the file"
    )


READERS: dict[str, Callable[[Path], Table]] = {
    ".csv": read_csv,
    ".tsv": read_csv,
    ".parquet": read_parquet,
    ".arrow": read_arrow,
    ".feather": read_arrow,
    ".npz": read_npz,
}
