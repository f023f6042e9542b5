"""Synthetic prediction logs that are clean by construction."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from modelyard.data.contract import Column, Contract
from modelyard.data.profile import Profile, profile

LABELS = ("cat", "dog", "owl")


class World:
    """A classifier's world: what rows look like, and what a log of them looks like."""

    contract = Contract(
        "pets",
        (
            Column("weight", "number", missing_max=0.1, minimum=0.0),
            Column("legs", "integer", minimum=0.0, maximum=8.0),
            Column("colour", "category", categories=("red", "green", "blue")),
            Column("photo", "tensor", shape=(4, 4), datatype="FP32"),
            Column("species", "category", role="label", categories=LABELS),
        ),
    )

    def rows(self, count: int, seed: int, **moves: Any) -> dict[str, Any]:
        rng = np.random.default_rng(seed)
        weight = rng.gamma(2.0, 3.0, count) + moves.get("weight", 0.0)
        weight[rng.random(count) < moves.get("missing", 0.03)] = np.nan
        return {
            "weight": weight,
            "legs": rng.integers(0, 5, count),
            "colour": rng.choice(["red", "green", "blue"], count, p=moves.get("colour", [0.5, 0.3, 0.2])),
            "photo": rng.random((count, 4, 4)).astype(np.float32) * moves.get("bright", 1.0),
        }

    def table(self, rows: dict[str, Any]) -> pa.Table:
        count = len(rows["legs"])
        flat = pa.array(rows["photo"].reshape(-1), pa.float32())
        photo = pa.FixedSizeListArray.from_arrays(flat, 16)
        weight = pa.array(rows["weight"], pa.float64(), from_pandas=True)
        return pa.table(
            {
                "weight": weight,
                "legs": pa.array(rows["legs"]),
                "colour": pa.array([str(value) for value in rows["colour"]]),
                "photo": pa.ExtensionArray.from_storage(pa.fixed_shape_tensor(pa.float32(), (4, 4)), photo),
            }
        ).slice(0, count)

    def answers(self, count: int, seed: int, sharp: float = 4.0) -> np.ndarray[Any, Any]:
        scores = np.random.default_rng(seed + 1).normal(0, sharp, (count, 3))
        exps = np.exp(scores - scores.max(axis=1, keepdims=True))
        return exps / exps.sum(axis=1, keepdims=True)

    def reference(self, count: int = 4000, seed: int = 99) -> Profile:
        answers = self.answers(count, seed)
        return profile(
            self.table(self.rows(count, seed)),
            self.contract,
            extra={
                "prediction": np.array([LABELS[index] for index in answers.argmax(axis=1)], dtype=object),
                "confidence": answers.max(axis=1),
            },
        )

    def log(
        self, count: int, seed: int, *, start: float = 1_000_000.0, step: float = 0.1, **moves: Any
    ) -> pa.Table:
        features = self.table(self.rows(count, seed, **moves))
        answers = moves.get("answers", self.answers(count, seed))
        rng = np.random.default_rng(seed + 2)
        times = np.round((start + np.arange(count) * step) * 1e6).astype(np.int64)
        columns: dict[str, Any] = {
            "id": [f"{seed}-{index}" for index in range(count)],
            "time": pa.array(times, pa.timestamp("us", tz="UTC")),
            "endpoint": ["pets"] * count,
            "release": ["sha256:" + "0" * 64] * count,
            "version": ["1"] * count,
            "arm": ["primary"] * count,
            "outcome": ["ok"] * count,
            "latency": rng.lognormal(-6.0, 0.3, count) * moves.get("slow", 1.0),
            "breaches": pa.array([[] for _ in range(count)], pa.list_(pa.string())),
            "label": [LABELS[index] for index in np.nan_to_num(answers).argmax(axis=1)],
            "confidence": answers.max(axis=1),
            "probabilities": pa.array(list(answers), pa.list_(pa.float64())),
        }
        for name in features.column_names:
            columns[f"in_{name}"] = features[name]
        return pa.table(columns)

    def feedback(
        self, log: pa.Table, share_right: float, seed: int = 5, *, at: float | None = None
    ) -> pa.Table:
        rng = np.random.default_rng(seed)
        labels = log["label"].to_pylist()
        given = [
            label if rng.random() < share_right else LABELS[(LABELS.index(label) + 1) % 3] for label in labels
        ]
        time = (
            log["time"]
            if at is None
            else pa.array([round(at * 1e6)] * len(given), pa.timestamp("us", tz="UTC"))
        )
        return pa.table({"id": log["id"], "time": time, "label": given})


@pytest.fixture(scope="session")
def world() -> World:
    return World()


@pytest.fixture(scope="session")
def reference(world: World) -> Profile:
    return world.reference()


@pytest.fixture
def put() -> Callable[..., pa.Table]:
    """Replaces a column of a table."""

    def replace(table: pa.Table, name: str, values: Any) -> pa.Table:
        field = table.schema.field(name)
        column = values if isinstance(values, pa.Array | pa.ChunkedArray) else pa.array(values, field.type)
        return table.set_column(table.column_names.index(name), name, column)

    return replace
