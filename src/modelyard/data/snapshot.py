"""An immutable, fingerprinted data set: its parts are Parquet objects, its digest names their content."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from modelyard.core.digest import Digest, digest_json
from modelyard.core.errors import DataError
from modelyard.core.format import check_format
from modelyard.core.names import did_you_mean
from modelyard.data.contract import Contract
from modelyard.data.fingerprint import fingerprint
from modelyard.data.physical import Table, as_text, plain
from modelyard.data.split import PARTS, Split
from modelyard.store.objects import ObjectStore

FORMAT = 1
"""Version of the stored form. Raise it when an old reader would misread a new snapshot."""


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a snapshot: how many rows, and the digest of its Parquet object."""

    rows: int
    object: Digest

    def to_json(self) -> dict[str, Any]:
        return {"rows": self.rows, "object": self.object}

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> Part:
        return Part(int(value["rows"]), str(value["object"]))


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A data set that never changes; `digest` follows from everything else in it.

    `contract` and `fingerprint` are the digests of the contract it was checked against and of the
    table's content; `split` is what dealt the rows out.
    """

    digest: Digest
    contract: Digest
    fingerprint: Digest
    rows: int
    parts: Mapping[str, Part]
    split: Mapping[str, Any] = field(default_factory=dict)
    version: int = FORMAT

    def to_json(self) -> dict[str, Any]:
        return {"digest": self.digest, **_facts(self.contract, self.fingerprint, self.parts, self.split)}

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> Snapshot:
        """The inverse of `to_json`; raises `DataError` when the digest does not fit the rest."""
        check_format(value.get("version"), FORMAT, "the snapshot", DataError, key="version")
        parts = {name: Part.from_json(item) for name, item in value["parts"].items()}
        snapshot = _snapshot(str(value["contract"]), str(value["fingerprint"]), parts, value["split"])
        if snapshot.digest != value["digest"]:
            raise DataError(
                "the snapshot was changed after it was taken",
                value=value["digest"],
                rule="its digest follows from its content",
                fix="take a new snapshot",
            )
        return snapshot


def take_snapshot(table: Table, contract: Contract, split: Split, objects: ObjectStore) -> Snapshot:
    """Stores a table's parts and names them; the same input gives the same digest on every machine.

    Columns that the contract does not know, and ignored ones that are personal or sensitive, are left
    out. Raises `DataError` for an empty table, an absent column, a part that would be empty, and a
    train part with fewer than two classes.
    """
    table = plain(table)
    if not table.num_rows:
        raise DataError("the table is empty", rule="one row or more", fix="check the source")
    parts = split.assign(table)
    kept = table.select(_kept(table, contract))
    mask = [pa.array(parts == index) for index in range(len(PARTS))]
    tables = {name: kept.filter(mask[index]) for index, name in enumerate(PARTS)}
    if contract.task == "classification":
        classes = as_text(tables["train"].column(contract.label.name)).unique().drop_null()
        if len(classes) < 2:
            raise DataError(
                f"the train part has {len(classes)} class of the label {contract.label.name!r}",
                value=classes.to_pylist(),
                rule="two classes or more",
                fix="bring rows of other classes, or check the label",
            )
    stored = {name: Part(part.num_rows, objects.put(to_parquet(part))) for name, part in tables.items()}
    return _snapshot(contract.digest, fingerprint(table), stored, split.to_json())


def load_part(snapshot: Snapshot, name: str, objects: ObjectStore) -> Table:
    """The rows of one part (`train`, `validation` or `test`), verified against its digest.

    Raises `DataError` for an unknown part, and the store's `ObjectMissing` or `ObjectCorrupt`.
    """
    if name not in snapshot.parts:
        raise DataError(f"the snapshot has no part {name!r}", fix=did_you_mean(name, snapshot.parts))
    part = snapshot.parts[name]
    table = from_parquet(objects.get(part.object))
    if table.num_rows != part.rows:
        raise DataError(
            f"the part {name!r} has another length", value=table.num_rows, rule=f"{part.rows} rows"
        )
    return table


def to_parquet(table: Table) -> bytes:
    """A table as Parquet bytes that depend on nothing but its content and the library's version."""
    sink = pa.BufferOutputStream()
    # Pixels and measurements gain nothing from dictionaries or byte-stream splits but lose time.
    text = [field.name for field in table.schema if pa.types.is_string(field.type)]
    pq.write_table(
        table,
        sink,
        compression="zstd",
        compression_level=1,
        use_dictionary=text or False,
        write_statistics=False,
    )
    return bytes(sink.getvalue())


def from_parquet(data: bytes) -> Table:
    """The inverse of `to_parquet`; raises `DataError` when the bytes are not Parquet."""
    try:
        return plain(pq.read_table(pa.BufferReader(data), use_threads=False))
    except pa.ArrowException as error:
        raise DataError(
            "a stored part is not Parquet", value=str(error), fix="take a new snapshot"
        ) from error


def _kept(table: Table, contract: Contract) -> list[str]:
    kept = []
    for column in contract.columns:
        if column.role == "ignored":
            if column.private or column.name not in table.column_names:
                continue
        elif column.name not in table.column_names:
            raise DataError(
                f"the table has no column {column.name!r}",
                rule=f"the contract has it as {column.role}",
                fix=did_you_mean(column.name, table.column_names),
            )
        kept.append(column.name)
    return kept


def _facts(
    contract: Digest, content: Digest, parts: Mapping[str, Part], split: Mapping[str, Any]
) -> dict[str, Any]:
    return {
        "version": FORMAT,
        "contract": contract,
        "fingerprint": content,
        "rows": sum(part.rows for part in parts.values()),
        "parts": {name: part.to_json() for name, part in parts.items()},
        "split": dict(split),
    }


def _snapshot(
    contract: Digest, content: Digest, parts: Mapping[str, Part], split: Mapping[str, Any]
) -> Snapshot:
    facts = _facts(contract, content, parts, split)
    return Snapshot(digest_json(facts), contract, content, facts["rows"], dict(parts), dict(split))
