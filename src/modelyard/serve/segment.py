"""Prediction records as an Arrow table, and tables as Parquet segments that are whole or absent."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from modelyard.core.spec import Tensors
from modelyard.data.live import Breach, LiveContract
from modelyard.data.tensors import table_of, take
from modelyard.serve.codec.rows import item_ids
from modelyard.serve.record import FORMAT, PredictionRecord, ReleaseFacts

PRIVATE = ("personal", "sensitive")
_META = {b"modelyard.predictions": str(FORMAT).encode()}
_TIME = pa.timestamp("us", tz="UTC")


def table_of_records(
    records: Sequence[PredictionRecord], contract: LiveContract, *, keep_private: bool
) -> tuple[pa.Table, tuple[Breach, ...]]:
    """Records of one release as rows, an item each, and what they broke of the contract.

    All records must have inputs, or none of them; the same holds for outputs.
    """
    release = records[0].by
    counts = [record.rows for record in records]
    rows = sum(counts)
    inputs = _joined([record.inputs for record in records])
    breaches = contract.breaches(inputs) if inputs else ()
    columns: dict[str, pa.Array] = {
        "id": pa.array(
            [item for record in records for item in item_ids(record.id, record.rows)], pa.string()
        ),
        "time": pa.array(_spread([int(record.time * 1e6) for record in records], counts), pa.int64()).cast(
            _TIME
        ),
        "endpoint": _same(records[0].endpoint, rows),
        "release": _same(release.digest, rows),
        "version": _same(release.version, rows),
        "arm": _texts([record.arm for record in records], counts),
        "outcome": _texts([record.outcome for record in records], counts),
        "latency": pa.array(_spread([record.latency for record in records], counts), pa.float64()),
        "breaches": _breach_lists(inputs, rows, contract, breaches),
    }
    if inputs:
        columns |= _inputs(inputs, release, keep_private=keep_private)
    outputs = _joined([record.outputs for record in records])
    if outputs:
        columns |= _outputs(outputs, release.labels)
    return pa.table(columns).replace_schema_metadata(_META), breaches


def write_segment(path: Path, table: pa.Table) -> None:
    """Writes a segment; a reader, or a kill at any moment, sees the whole of it or none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        pq.write_table(table, part, compression="zstd", compression_level=1)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _joined(parts: Sequence[Tensors]) -> Tensors:
    if not parts[0]:
        return {}
    if len(parts) == 1:
        return parts[0]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _spread(values: Sequence[float], counts: Sequence[int]) -> npt.NDArray[np.generic]:
    return np.repeat(np.asarray(values), counts)


def _same(text: str, rows: int) -> pa.Array:
    return pa.repeat(pa.scalar(text, pa.string()), rows)


def _texts(values: Sequence[str], counts: Sequence[int]) -> pa.Array:
    return pa.array([value for value, count in zip(values, counts, strict=True) for _ in range(count)])


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
