"""Which row trains, validates and tests: by a hash that every machine computes alike, or by time."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from modelyard.core.errors import DataError
from modelyard.core.names import did_you_mean
from modelyard.data.physical import Table, as_floats, as_text, is_tensor, tensor_values

PARTS = ("train", "validation", "test")
"""The parts of a snapshot; `assign` answers with indices into them."""


class Split(Protocol):
    """How rows are dealt out. `assign` is pure: the same rows get the same parts on every machine."""

    def assign(self, table: Table) -> npt.NDArray[np.int8]:
        """The part of every row, as an index into `PARTS`; raises `DataError` when a part gets none."""
        ...

    def to_json(self) -> dict[str, Any]:
        """What determines the split, for the snapshot's digest."""
        ...


@dataclass(frozen=True, slots=True)
class HashSplit:
    """Deals rows out by a hash of their key, or of their whole content when there is no key.

    Rows with the same key (or the same content) always land in the same part, whatever their order, so
    that nothing leaks from train to test, and a row stays where it was when others are added. The
    fractions are therefore met in expectation, not exactly; parts of a small table that would stay empty
    get the nearest groups by hash instead. Missing keys are hashed by content.
    """

    fractions: tuple[float, float, float] = (0.7, 0.15, 0.15)
    key: str | None = None
    salt: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "fractions", _checked(self.fractions))

    def assign(self, table: Table) -> npt.NDArray[np.int8]:
        names = table.column_names
        if self.key is not None and self.key not in names:
            raise DataError(f"the split's key {self.key!r} is no column", fix=did_you_mean(self.key, names))
        if self.key is not None:
            hashes = _hashes(table.select([self.key]), self.salt)
            missing = np.asarray(table.column(self.key).is_null().to_numpy(), dtype=np.bool_)
            if missing.any():
                hashes[missing] = _hashes(table.filter(pa.array(missing)), self.salt)
        else:
            hashes = _hashes(table.select(sorted(names)), self.salt)
        edges = np.cumsum(self.fractions)[:2]
        places = hashes / 2.0**64
        parts = np.searchsorted(edges, places, side="right").astype(np.int8)
        return _filled(parts, hashes, self.fractions, "groups of equal rows or keys")

    def to_json(self) -> dict[str, Any]:
        return {"by": "hash", "fractions": list(self.fractions), "key": self.key, "salt": self.salt}


@dataclass(frozen=True, slots=True)
class TimeSplit:
    """Deals rows out by time: the oldest train, the newest test. Rows of the same time stay together."""

    column: str
    fractions: tuple[float, float, float] = (0.7, 0.15, 0.15)

    def __post_init__(self) -> None:
        object.__setattr__(self, "fractions", _checked(self.fractions))

    def assign(self, table: Table) -> npt.NDArray[np.int8]:
        if self.column not in table.column_names:
            raise DataError(
                f"the split's column {self.column!r} is no column",
                fix=did_you_mean(self.column, table.column_names),
            )
        column = table.column(self.column)
        kind = column.type
        if pa.types.is_date(kind) or pa.types.is_timestamp(kind):
            column = pc.cast(pc.cast(column, pa.timestamp("us"), safe=False), pa.int64())
        elif not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
            raise DataError(
                f"the split's column {self.column!r} does not order rows",
                value=str(kind),
                rule="a timestamp, a date or a number",
            )
        times = as_floats(column) if pa.types.is_floating(kind) else column.fill_null(0).to_numpy()
        missing = column.null_count + int(np.isnan(times).sum() if times.dtype.kind == "f" else 0)
        if missing:
            raise DataError(
                f"the split's column {self.column!r} is missing in {missing:,} rows",
                rule="every row has a time",
                fix="drop those rows in the source, or split by hash",
            )
        if not len(times):
            return _filled(np.zeros(0, np.int8), times, self.fractions, "different times")
        # A row belongs to the part in which the first row of its time falls.
        ordered = np.sort(times)
        first = np.searchsorted(ordered, times, side="left") / len(times)
        parts = np.searchsorted(np.cumsum(self.fractions)[:2] - 1e-12, first, side="right").astype(np.int8)
        return _filled(parts, times, self.fractions, "different times")

    def to_json(self) -> dict[str, Any]:
        return {"by": "time", "fractions": list(self.fractions), "column": self.column}


def _checked(fractions: Sequence[float]) -> tuple[float, float, float]:
    wrong = len(fractions) != len(PARTS) or any(
        isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share < 1
        for share in fractions
    )
    if wrong or not math.isclose(sum(fractions), 1.0, abs_tol=1e-9):
        raise DataError(
            "the split's fractions are wrong",
            value=list(fractions),
            rule="three shares for train, validation and test, each above 0, that add up to 1",
            fix="use for example 0.7, 0.15, 0.15",
        )
    return (float(fractions[0]), float(fractions[1]), float(fractions[2]))


def _filled(
    parts: npt.NDArray[np.int8], order: npt.NDArray[Any], fractions: tuple[float, ...], what: str
) -> npt.NDArray[np.int8]:
    """The parts as they are, unless one is empty: then groups are dealt out in order, one each at least."""
    if all((parts == index).any() for index in range(len(PARTS))):
        return parts
    groups, places = np.unique(order, return_inverse=True)
    if len(groups) < len(PARTS):
        raise DataError(
            f"the table cannot be split: it has {len(parts):,} rows in {len(groups)} {what}",
            rule="train, validation and test get one or more each",
            fix="bring more data, or another key",
        )
    last = len(groups) - 2
    train = min(max(round(fractions[0] * len(groups)), 1), last)
    validation = min(max(round(fractions[1] * len(groups)), 1), last - train + 1)
    dealt = np.repeat(np.arange(3, dtype=np.int8), [train, validation, len(groups) - train - validation])
    return dealt[places].astype(np.int8)


def _hashes(table: Table, salt: str) -> npt.NDArray[np.uint64]:
    """One 64-bit hash a row. Each column is hashed by itself and mixed in with its name, in vectors."""
    seed = np.uint64(_blake(b"modelyard.split\0" + salt.encode()))
    total = np.full(table.num_rows, seed, dtype=np.uint64)
    for name in table.column_names:
        column = _column_hashes(table.column(name))
        total = _mix(total ^ (column + np.uint64(_blake(name.encode()))))
    return total


def _column_hashes(column: pa.ChunkedArray) -> npt.NDArray[np.uint64]:
    if is_tensor(column.type):
        values, missing = tensor_values(column)
        rows = np.ascontiguousarray(values).reshape(len(values), math.prod(values.shape[1:]))
        width = rows.shape[1] * rows.dtype.itemsize
        data = memoryview(cast(Any, rows.view(np.uint8).reshape(-1) if rows.size else b""))
        hashes = np.fromiter(
            (_blake(data[place * width : (place + 1) * width]) for place in range(len(values))),
            dtype=np.uint64,
            count=len(values),
        )
        return np.where(missing, np.uint64(0), hashes)
    # As text, so that 7 stays in its part when the column's width or type of integer changes; each
    # distinct value is hashed once.
    encoded = as_text(column).combine_chunks().dictionary_encode()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.unify_dictionaries().combine_chunks()
    distinct = np.array(
        [0, *(_blake(value.encode()) for value in encoded.dictionary.to_pylist())], dtype=np.uint64
    )
    places: npt.NDArray[Any] = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    return np.asarray(distinct[places + 1], np.uint64)


def _mix(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """The finaliser of SplitMix64 (Steele, Lea and Flood 2014): every input bit reaches every output bit."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _blake(data: bytes | memoryview) -> int:
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")
