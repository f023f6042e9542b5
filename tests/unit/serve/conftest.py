"""Stand-ins for what surrounds the plane: a loop that runs when told to, a session that computes in numpy."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelyard.core.clock import ManualClock
from modelyard.core.errors import ModelError
from modelyard.core.spec import Signature, Tensors, TensorSpec
from modelyard.data.contract import Column, Contract
from modelyard.serve.lane import Lane
from modelyard.serve.metrics import Histogram, Metrics
from modelyard.serve.pool import Served
from modelyard.serve.record import PredictionRecord


class ManualExecutor:
    """Keeps work until `run` is called; threads are the same as the loop."""

    def __init__(self) -> None:
        self.work: list[Callable[[], None]] = []
        self.soon: Callable[[Callable[[], None]], object] = self.work.append

    def offload(
        self, work: Callable[[], Any], done: Callable[[Any], None], *, owner: object = None, cost: float = 0.0
    ) -> None:
        self.work.append(lambda: done(work()))

    def run(self, steps: int = -1) -> None:
        while self.work and steps:
            self.work.pop(0)()
            steps -= 1


class TripleSession:
    """`prediction` = 3 * x, item by item; raises for a batch that holds 13."""

    signature = Signature((TensorSpec("x", "FP32", (-1, 1)),), (TensorSpec("prediction", "FP32", (-1, 1)),))

    def __init__(self) -> None:
        self.batches: list[int] = []

    def run(self, inputs: Tensors, outputs: Sequence[str] | None = None) -> Tensors:
        self.batches.append(len(inputs["x"]))
        if (inputs["x"] == 13).any():
            raise ModelError("thirteen")
        return {"prediction": inputs["x"] * 3}

    def close(self) -> None: ...


class Records(list[PredictionRecord]):
    """A recorder that keeps all."""


CONTRACT = Contract(
    "triple", (Column("x", "number", minimum=0, maximum=100), Column("y", "number", role="label"))
)


class Bench:
    """A lane per release, on one manual executor."""

    def __init__(self) -> None:
        self.executor = ManualExecutor()
        self.metrics = Metrics()
        self.clock = ManualClock(1_000.0)
        self.records = Records()

    def lane(self, session: Any, *, inline: bool = True, batch: int = 64, room: int = 1_000,
             batchable: bool = True, wait: float = inf) -> Lane:  # fmt: skip
        return Lane(
            session, self.executor, batch=batch, room=room, inline=inline, batchable=batchable,
            run_seconds=Histogram(), batch_items=Histogram(), item_seconds=1e-5, wait=wait,
            monotonic=self.clock.monotonic,
        )  # fmt: skip

    def served(self, digit: str = "a", version: str = "1", session: Any = None, **options: Any) -> Served:
        session = session or TripleSession()
        return Served(
            digest="sha256:" + digit * 64,
            name="triple",
            version=version,
            task="regression",
            labels=(),
            output="prediction",
            signature=session.signature,
            contract=CONTRACT,
            lane=self.lane(session, **options),
            session=session,
            item_seconds=1e-5,
        )


def column(*values: float) -> Tensors:
    return {"x": np.array(values, np.float32).reshape(-1, 1)}


@pytest.fixture
def bench() -> Bench:
    return Bench()


@pytest.fixture
def inputs() -> Callable[..., Tensors]:
    return column


@pytest.fixture
def state(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "state"
