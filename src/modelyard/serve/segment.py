"""Prediction records as an Arrow table, and tables as Parquet segments that are whole or absent."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from modelyard.core.spec import Tensors
from modelyard.data.live import Breach, LiveContract
from modelyard.data.tensors import table_of, take
from modelyard.serve.codec.rows import item_ids
from modelyard.serve.record import FORMAT, PredictionRecord, ReleaseFacts, seconds_of

PRIVATE = ("personal", "sensitive")
QUICK = ".arrow"
"""Suffix of segments that were written in a hurry: Arrow's file format."""
_META = {b"modelyard.predictions": str(FORMAT).encode()}
_TIME = pa.timestamp("us", tz="UTC")
_REPEATED = ("endpoint", "release", "version", "arm", "outcome", "label")


def table_of_records(
    records: Sequence[PredictionRecord], contract: LiveContract, *, keep_private: bool
) -> tuple[pa.Table, tuple[Breach, ...]]:
    """Records of one release, arm and outcome as rows, an item each, and what they broke of the contract.

    All records must have inputs, or none of them; the same holds for outputs.
    """
    first = records[0]
    release = first.by
    counts = [count for record in records for count in record.rows]
    rows = sum(record.items for record in records)
    inputs = _joined([record.inputs for record in records])
    breaches = contract.breaches(inputs) if inputs else ()
    latencies = seconds_of(records)
    each = [len(record.ids) for record in records]
    times = np.repeat(np.array([record.time for record in records]), each) - latencies
    ids = [identity for record in records for identity in record.ids]
    if rows != len(ids):
        ids = [item for identity, n in zip(ids, counts, strict=True) for item in item_ids(identity, n)]
        latencies, times = np.repeat(latencies, counts), np.repeat(times, counts)
    columns: dict[str, pa.Array] = {
        "id": pa.array(ids, pa.string()),
        "time": pa.array((times * 1e6).astype(np.int64)).view(_TIME),
        "endpoint": _same(first.endpoint, rows),
        "release": _same(release.digest, rows),
        "version": _same(release.version, rows),
        "arm": _same(first.arm, rows),
        "outcome": _same(first.outcome, rows),
        "latency": pa.array(latencies),
        "breaches": _breach_lists(inputs, rows, contract, breaches),
    }
    if inputs:
        columns |= _inputs(inputs, release, keep_private=keep_private)
    outputs = _joined([record.outputs for record in records])
    if outputs:
        columns |= _outputs(outputs, release.labels)
    return pa.table(columns).replace_schema_metadata(_META), breaches


def write_segment(path: Path, table: pa.Table, between: Callable[[], None] | None = None) -> None:
    """Writes a segment as its suffix says, `.parquet` or `.arrow` (an eighth of the work, and no smaller).

    A reader, or a kill at any moment, sees the whole of it or none. `between` is called after each part of
    an `.arrow` segment: there are as many as the table has chunks.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        if path.suffix == QUICK:
            with pa.OSFile(str(part), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
                for batch in table.to_batches():
                    writer.write_batch(batch)
                    if between is not None:
                        between()
        else:
            _write_parquet(part, table)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def read_segment(path: Path) -> pa.Table:
    """A segment's rows; raises `OSError` or `pyarrow.ArrowException` when it is gone or damaged."""
    if path.suffix == QUICK:
        with pa.memory_map(str(path)) as source:
            return pa.ipc.open_file(source).read_all()
    # The file alone, not its folder: segments of other releases have other columns.
    return pq.ParquetFile(path).read()


def finish_segment(path: Path) -> None:
    """Turns an `.arrow` segment into a `.parquet` one; two processes may do it at once."""
    try:
        table = read_segment(path)
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


def _joined(parts: Sequence[Tensors]) -> Tensors:
    if not parts[0]:
        return {}
    if len(parts) == 1:
        return parts[0]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _same(text: str, rows: int) -> pa.Array:
    return pa.repeat(pa.scalar(text, pa.string()), rows)


def _inputs(inputs: Tensors, release: ReleaseFacts, *, keep_private: bool) -> dict[str, pa.Array]:
    table = table_of(inputs, release.contract)
    hidden = {
        column.name for column in release.contract.features if not keep_private and column.privacy in PRIVATE
    }
    return {
        f"in_{name}": table.column(name).combine_chunks() for name in table.column_names if name not in hidden
    }


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


def _breach_lists(
    inputs: Tensors, rows: int, contract: LiveContract, breaches: tuple[Breach, ...]
) -> pa.Array:
    kind = pa.list_(pa.string())
    if not breaches:
        return pa.ListArray.from_arrays(pa.array(np.zeros(rows + 1, np.int32)), pa.array([], pa.string()))
    found: list[list[str]] = [[] for _ in range(rows)]
    _attribute(inputs, slice(0, rows), contract, breaches, found)
    return pa.array(found, kind)


def _attribute(
    inputs: Tensors,
    rows: slice,
    contract: LiveContract,
    breaches: tuple[Breach, ...],
    found: list[list[str]],
) -> None:
    """Finds which rows broke what by halving: a clean half costs one check, and so does an all-broken one."""
    if all(breach.rows == rows.stop - rows.start for breach in breaches):
        texts = [f"{breach.column}: {breach.rule}" for breach in breaches]
        for index in range(rows.start, rows.stop):
            found[index] = texts
        return
    middle = (rows.start + rows.stop) // 2
    for half in (slice(rows.start, middle), slice(middle, rows.stop)):
        part = contract.breaches(take(inputs, half))
        if part:
            _attribute(inputs, half, contract, part, found)
