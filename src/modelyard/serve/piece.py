"""`Piece`: prediction records that are alike, joined; what the log works on at once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain

import msgspec
import numpy as np

from modelyard.core.spec import Tensors
from modelyard.serve.record import Arm, Outcome, PredictionRecord, Seconds, seconds_of


class Piece(msgspec.Struct, gc=False):
    """Requests of one endpoint, release, arm and outcome.

    `ids`, `counts` (items), `times` (seconds since 1970) and `latencies` have an entry a request; the
    arrays and `broken` an item. `broken` says what each item broke of the contract, and is empty where
    none did.
    """

    arm: Arm
    outcome: Outcome
    ids: list[str]
    counts: list[int]
    times: Seconds
    latencies: Seconds
    inputs: Tensors
    outputs: Tensors
    broken: list[list[str]] = []

    @property
    def items(self) -> int:
        return sum(self.counts)


def pieces_of(records: Iterable[PredictionRecord]) -> list[Piece]:
    """The records by arm, outcome, and whether they have inputs and outputs; raises `ValueError`."""
    alike: dict[tuple[object, ...], list[PredictionRecord]] = {}
    for record in records:
        key = (record.arm, record.outcome, bool(record.inputs), bool(record.outputs))
        alike.setdefault(key, []).append(record)
    return [_joined(part) for part in alike.values()]


def _joined(records: Sequence[PredictionRecord]) -> Piece:
    latencies = seconds_of(records)
    ids = list(chain.from_iterable(record.ids for record in records))
    counts = list(chain.from_iterable(record.rows for record in records))
    if not len(ids) == len(counts) == len(latencies) or sum(counts) != sum(item.items for item in records):
        raise ValueError(f"{len(ids)} ids, {len(latencies)} latencies and {len(counts)} numbers of items")
    times = np.repeat(np.array([record.time for record in records]), [len(record.ids) for record in records])
    times -= latencies
    return Piece(
        records[0].arm,
        records[0].outcome,
        ids,
        counts,
        times,
        latencies,
        _together([record.inputs for record in records]),
        _together([record.outputs for record in records]),
    )


def _together(parts: Sequence[Tensors]) -> Tensors:
    if not parts[0]:
        return {}
    if len(parts) == 1:
        return parts[0]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
