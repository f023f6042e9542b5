from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pytest

from modelyard.core.digest import Digest, digest_bytes
from modelyard.core.errors import ObjectMissing
from modelyard.data.contract import Column, Contract
from modelyard.data.physical import tensor_column


class MemoryObjects:
    """An object store in memory."""

    def __init__(self) -> None:
        self.held: dict[Digest, bytes] = {}

    def put(self, data: bytes) -> Digest:
        digest = digest_bytes(data)
        self.held[digest] = data
        return digest

    def get(self, digest: Digest) -> bytes:
        if digest not in self.held:
            raise ObjectMissing("no object has this digest", value=digest)
        return self.held[digest]

    def has(self, digest: Digest) -> bool:
        return digest in self.held

    def digests(self) -> Iterator[Digest]:
        return iter(list(self.held))


@pytest.fixture
def objects() -> MemoryObjects:
    return MemoryObjects()


@pytest.fixture
def contract() -> Contract:
    return Contract(
        "people",
        (
            Column("id", "integer", "key"),
            Column("age", "integer", missing_max=0.25, minimum=0, maximum=120, privacy="quasi"),
            Column("height", "number", minimum=0.5, maximum=2.5),
            Column("smoker", "boolean"),
            Column("city", "category", categories=("Bonn", "Köln"), missing_max=0.5),
            Column("note", "text", missing_max=1.0),
            Column("scan", "tensor", shape=(2, 2), datatype="FP32", minimum=0, maximum=1),
            Column("seen", "timestamp", "order"),
            Column("risk", "category", "label", categories=("low", "high")),
        ),
    )


@pytest.fixture
def table() -> pa.Table:
    rows = 40
    rng = np.random.default_rng(0)
    return pa.table(
        {
            "id": np.arange(rows),
            "age": pa.array([None if place % 10 == 0 else 20 + place for place in range(rows)], pa.int64()),
            "height": rng.uniform(1.5, 2.0, rows),
            "smoker": rng.integers(0, 2, rows).astype(bool),
            "city": ["Bonn", "Köln", "Bonn", None] * 10,
            "note": [f"text {place}" for place in range(rows)],
            "scan": tensor_column(rng.uniform(0, 1, (rows, 2, 2)).astype(np.float32)),
            "seen": pa.array(np.arange(rows) * 1_000_000, pa.timestamp("us")),
            "risk": ["low", "high"] * (rows // 2),
        }
    )
