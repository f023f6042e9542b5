"""Where a table comes from: a Python function, or a CSV, Parquet, Arrow or npz file."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from modelyard.core.digest import Digest
from modelyard.core.errors import DataError
from modelyard.core.names import did_you_mean
from modelyard.data.fingerprint import fingerprint
from modelyard.data.physical import Table, plain


class Source(Protocol):
    """What a table is loaded from.

    `load` is called before or after `fingerprint`, any number of times, and gives equal tables; what it
    gives is in the form of `plain` and holds one row or more. Both raise `DataError` and nothing else.
    """

    def load(self) -> Table:
        """The whole table."""
        ...

    def fingerprint(self) -> Digest:
        """The digest of the content: it changes whenever a value, a type, a name or the order changes."""
        ...


class LoadedSource:
    """A source around a function that reads a table; the table is read once and kept."""

    def __init__(self, read: Callable[[], Table], what: str) -> None:
        self._read = read
        self._what = what
        self._table: Table | None = None
        self._digest: Digest | None = None

    def load(self) -> Table:
        if self._table is None:
            try:
                table = plain(self._read())
            except DataError as error:
                if error.where is None:
                    error.where = self._what
                raise
            if not table.num_columns or not table.num_rows:
                raise DataError(
                    "the data is empty",
                    value=f"{table.num_rows} rows, {table.num_columns} columns",
                    rule="one row and one column or more",
                    fix="check what the source gives",
                    where=self._what,
                )
            self._table = table
        return self._table

    def fingerprint(self) -> Digest:
        if self._digest is None:
            self._digest = fingerprint(self.load())
        return self._digest


def open_source(spec: str, root: Path) -> Source:
    """The source that a text names: `data.py:load`, `x.csv`, `x.parquet`, `x.arrow` or `x.npz` under `root`.

    A function may return a pyarrow Table, a dict of arrays, a pandas frame, or arrays (X, y), which
    become the columns `image` (rank 3 or more) or `features`, and `label`. Nothing is read or run before
    `load`, but a file that is absent raises `DataError` with "did you mean" at once.
    """
    from modelyard.data import files, function

    if not isinstance(spec, str) or not spec.strip():
        raise DataError(
            "the source is not named", value=spec, rule='for example "data.py:load" or "data.csv"'
        )
    path_text, colon, name = spec.rpartition(":")
    if not colon or not path_text.endswith(".py"):
        path_text, name = spec, ""
    if path_text.endswith(".py") and not name.isidentifier():
        raise DataError(
            "the source does not name a function", value=spec, rule='file.py:function, such as "data.py:load"'
        )
    path = _existing(root, path_text)
    if name:
        return LoadedSource(lambda: function.call(path, name), f"{path_text}:{name}")
    suffix = path.suffix.lower()
    if suffix not in files.READERS:
        raise DataError(
            f"no reader for {path_text!r}",
            value=suffix or "no suffix",
            rule="file.py:function, or a file ending in " + ", ".join(sorted(files.READERS)),
            fix=did_you_mean(suffix, files.READERS),
        )
    return LoadedSource(lambda: files.READERS[suffix](path), path_text)


def _existing(root: Path, text: str) -> Path:
    path = root / text
    if path.is_file():
        return path
    folder = path.parent
    if path.is_dir():
        raise DataError(f"{text!r} is a folder", rule="a source is a file", fix="name a file in it")
    if not folder.is_dir():
        raise DataError(
            f"there is no file {text!r}", value=str(path), fix=f"there is no folder {folder} either"
        )
    names = sorted(
        entry.name for entry in folder.iterdir() if entry.is_file() and not entry.name.startswith(".")
    )
    close = difflib.get_close_matches(path.name, names, n=1)
    hint = (
        f"did you mean {close[0]!r}?" if close else "the folder has: " + (", ".join(names[:10]) or "no file")
    )
    raise DataError(
        f"there is no file {text!r}", value=str(path), rule="a path from the project's folder", fix=hint
    )
