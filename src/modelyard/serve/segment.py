"""Segments of the prediction log: pieces as rows of a table, and files of rows that are whole or absent."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from modelyard.core.spec import Tensors
from modelyard.data.tensors import column_of
from modelyard.serve.codec.rows import item_ids
from modelyard.serve.journal import JOURNAL, read_journal
from modelyard.serve.piece import Piece
from modelyard.serve.record import FORMAT, ReleaseFacts

_META = {"modelyard.predictions": str(FORMAT)}
_TEXTS = pa.list_(pa.string())
_TIME = pa.timestamp("us", tz="UTC")
_REPEATED = ("endpoint", "release", "version", "arm", "outcome", "label")


def table_of_piece(piece: Piece, endpoint: str, release: ReleaseFacts) -> pa.Table:
    """A piece as rows, an item each; inputs that it does not hold have no column."""
    rows = piece.items
    ids, times, latencies = piece.ids, piece.times, piece.latencies
    if rows != len(ids):
        ids = [item for identity, n in zip(ids, piece.counts, strict=True) for item in item_ids(identity, n)]
        times, latencies = np.repeat(times, piece.counts), np.repeat(latencies, piece.counts)
    columns: dict[str, pa.Array] = {
        "id": pa.array(ids, pa.string()),
        "time": pa.array((times * 1e6).astype(np.int64)).view(_TIME),
        "endpoint": _same(endpoint, rows),
        "release": _same(release.digest, rows),
        "version": _same(release.version, rows),
        "arm": _same(piece.arm, rows),
        "outcome": _same(piece.outcome, rows),
        "latency": pa.array(latencies),
        "breaches": pa.array(piece.broken, _TEXTS) if piece.broken else _none_broken(rows),
    }
    for column in release.contract.features:
        if column.name in piece.inputs:
            columns[f"in_{column.name}"] = column_of(piece.inputs, column)
    if piece.outputs:
        columns |= _outputs(piece.outputs, release.labels)
    return pa.table(columns, metadata=_META)


def write_segment(path: Path, table: pa.Table) -> None:
    """Writes a Parquet segment; a reader, or a kill at any moment, sees the whole of it or none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        _write_parquet(part, table)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def read_segment(path: Path, between: Callable[[], None] | None = None) -> pa.Table:
    """A segment's rows, of a journal too; raises `OSError` or `pyarrow.ArrowException` when it is gone or
    damaged. `between` is called after each piece of a journal.
    """
    if path.suffix != JOURNAL:
        # The file alone, not its folder: segments of other releases have other columns.
        return pq.ParquetFile(path).read()
    facts, pieces = read_journal(path)
    release = facts.release()
    tables = []
    for piece in pieces:
        tables.append(table_of_piece(piece, facts.endpoint, release))
        if between is not None:
            between()
    return pa.concat_tables(tables, promote_options="permissive")


def finish_segment(path: Path, between: Callable[[], None] | None = None) -> None:
    """Turns a journal into a Parquet segment; two processes may do it at once."""
    try:
        table = read_segment(path, between)
    except FileNotFoundError:
        return  # another worker has done it.
    write_segment(path.with_suffix(".parquet"), table)
    path.unlink(missing_ok=True)


def _write_parquet(path: Path, table: pa.Table) -> None:
    # Measured numbers hardly repeat and hardly shrink: looking for both cost most of the writing.
    pq.write_table(
        table,
        path,
        compression={name: _codec(name, kind) for name, kind in _leaves(table.schema)},
        compression_level=None,
        use_dictionary=[field.name for field in table.schema if field.name in _REPEATED],
        write_statistics=["time"],
    )


def _leaves(schema: pa.Schema) -> list[tuple[str, pa.DataType]]:
    """The columns by the names that Parquet gives them, lists by that of their elements."""
    found = []
    for field in schema:
        name, kind = field.name, field.type
        while pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind) or pa.types.is_large_list(kind):
            name, kind = f"{name}.list.element", kind.value_type
        found.append((name, kind))
    return found


def _codec(name: str, kind: pa.DataType) -> str:
    return "none" if pa.types.is_floating(kind) or name == "time" else "snappy"


def _same(text: str, rows: int) -> pa.Array:
    return pa.repeat(pa.scalar(text, pa.string()), rows)


def _outputs(outputs: Tensors, labels: tuple[str, ...]) -> dict[str, pa.Array]:
    if not labels:
        values = np.asarray(outputs["prediction"], np.float64).reshape(-1)
        return {"prediction": pa.array(values)}
    probabilities = np.ascontiguousarray(outputs["probabilities"])
    rows, width = probabilities.shape
    best = probabilities.argmax(axis=1)
    offsets = np.arange(0, rows * width + 1, width, dtype=np.int32)
    flat = probabilities.reshape(-1).astype(np.float32, copy=False)
    return {
        "label": pa.array(labels, pa.string()).take(pa.array(best)),
        "confidence": pa.array(probabilities[np.arange(rows), best].astype(np.float64)),
        "probabilities": pa.ListArray.from_arrays(pa.array(offsets), pa.array(flat)),
    }


def _none_broken(rows: int) -> pa.Array:
    return pa.ListArray.from_arrays(pa.array(np.zeros(rows + 1, np.int32)), pa.array([], pa.string()))
