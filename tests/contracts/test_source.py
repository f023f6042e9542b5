"""The suite that every `Source` passes: equal tables on every load, and a fingerprint of the content."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.ipc
import pyarrow.parquet
import pytest

from modelyard.core.digest import is_digest
from modelyard.core.errors import DataError
from modelyard.data.physical import plain
from modelyard.data.source import Source, open_source


def _csv(root: Path, table: pa.Table) -> str:
    pa.csv.write_csv(table, root / "t.csv")
    return "t.csv"


def _parquet(root: Path, table: pa.Table) -> str:
    pa.parquet.write_table(table, root / "t.parquet")
    return "t.parquet"


def _arrow(root: Path, table: pa.Table) -> str:
    with pa.ipc.new_file(root / "t.arrow", table.schema) as writer:
        writer.write_table(table)
    return "t.arrow"


def _stream(root: Path, table: pa.Table) -> str:
    with pa.ipc.new_stream(root / "t.feather", table.schema) as writer:
        writer.write_table(table)
    return "t.feather"


def _npz(root: Path, table: pa.Table) -> str:
    np.savez(root / "t.npz", **{name: table.column(name).to_numpy() for name in table.column_names})
    return "t.npz"


def _function(root: Path, table: pa.Table) -> str:
    rows = {name: table.column(name).to_pylist() for name in table.column_names}
    (root / "data.py").write_text(f"def load():\n    return {rows!r}\n")
    return "data.py:load"


WRITERS = [_csv, _parquet, _arrow, _stream, _npz, _function]


@pytest.fixture
def small() -> pa.Table:
    return pa.table({"x": [1.5, 2.5, -3.5], "n": [1, 2, 3]})


@pytest.mark.parametrize("write", WRITERS)
def test_every_source_gives_the_same_table(
    write: Callable[[Path, pa.Table], str], small: pa.Table, tmp_path: Path
) -> None:
    spec = write(tmp_path, small)
    source: Source = open_source(spec, tmp_path)
    first = source.load()
    assert first.equals(small) and first.equals(source.load())
    assert plain(first).equals(first)
    assert open_source(spec, tmp_path).load().equals(first)


@pytest.mark.parametrize("write", WRITERS)
def test_the_fingerprint_follows_the_content(
    write: Callable[[Path, pa.Table], str], small: pa.Table, tmp_path: Path
) -> None:
    spec = write(tmp_path, small)
    before = open_source(spec, tmp_path).fingerprint()
    assert is_digest(before)
    assert open_source(spec, tmp_path).fingerprint() == before
    for other in (small.take([1, 0, 2]), small.slice(0, 2), small.rename_columns(["z", "n"])):
        assert open_source(write(tmp_path, other), tmp_path).fingerprint() != before


@pytest.mark.parametrize("write", WRITERS)
def test_no_rows_are_an_error_that_names_the_source(
    write: Callable[[Path, pa.Table], str], small: pa.Table, tmp_path: Path
) -> None:
    spec = write(tmp_path, small.slice(0, 0))
    with pytest.raises(DataError, match="empty") as caught:
        open_source(spec, tmp_path).load()
    assert caught.value.where is not None and spec in caught.value.where


@pytest.mark.parametrize("name", ["t.parquet", "t.arrow", "t.feather", "t.npz"])
@pytest.mark.parametrize(
    "content",
    [b"", b"hello", b"PAR1" + b"\0" * 40, b"ARROW1\0\0" + b"\xff" * 40, b"PK\3\4" + b"\0" * 60],
    ids=["empty", "text", "parquet", "arrow", "zip"],
)
def test_garbage_is_an_error_and_nothing_else(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError):
        open_source(name, tmp_path).load()


@pytest.mark.parametrize("write", [_parquet, _arrow, _npz])
def test_a_torn_file_is_an_error(
    write: Callable[[Path, pa.Table], str], small: pa.Table, tmp_path: Path
) -> None:
    spec = write(tmp_path, small)
    data = (tmp_path / spec).read_bytes()
    (tmp_path / spec).write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError, match="not readable"):
        open_source(spec, tmp_path).load()
