"""Fair scheduling with real threads: heavy models at full load, and a light one beside them."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import numpy as np
import pytest

from modelyard.core.spec import Signature, Tensors, TensorSpec
from modelyard.serve.executor import LoopExecutor
from modelyard.serve.lane import Call, Lane
from modelyard.serve.metrics import Histogram

HEAVY, LIGHT = 0.050, 0.002


class Sleeper:
    """A session that takes so long for each item, without the interpreter, as a runtime does."""

    signature = Signature((TensorSpec("x", "FP32", (-1, 1)),), (TensorSpec("y", "FP32", (-1, 1)),))

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.runs = 0

    def run(self, inputs: Tensors, outputs: Any = None) -> Tensors:
        self.runs += 1
        time.sleep(self.seconds * len(inputs["x"]))
        return {"y": inputs["x"]}

    def close(self) -> None: ...


def lane(session: Sleeper, executor: LoopExecutor) -> Lane:
    return Lane(
        session, executor, batch=1, room=10_000, inline=False, batchable=False, run_seconds=Histogram(),
        batch_items=Histogram(), item_seconds=session.seconds,
    )  # fmt: skip


async def asked(where: Lane) -> float:
    """Seconds to one answer."""
    ended = asyncio.get_running_loop().create_future()
    began = time.perf_counter()
    where.submit(Call({"x": np.zeros((1, 1), np.float32)}, 1, lambda *_: ended.set_result(None)))
    await ended
    return time.perf_counter() - began


@pytest.mark.serial
@pytest.mark.parametrize("heavies", [1, 2, 5])
def test_heavy_models_at_full_load_do_not_starve_a_light_one(heavies: int) -> None:
    async def scene() -> tuple[list[float], list[int]]:
        # As many threads as on a machine of one core or two.
        executor = LoopExecutor(asyncio.get_running_loop(), 2)
        sessions = [Sleeper(HEAVY) for _ in range(heavies)]
        busy = [lane(session, executor) for session in sessions]
        light = lane(Sleeper(LIGHT), executor)
        # A backlog of many seconds for each of the heavy ones.
        backlog = [asyncio.ensure_future(asked(where)) for where in busy for _ in range(200)]
        await asyncio.sleep(0)
        times = [await asked(light) for _ in range(60)]
        for waiting in backlog:
            waiting.cancel()
        return times, [session.runs for session in sessions]

    times, runs = asyncio.run(scene())
    # It waits for the nearer end of the two runs in work, never for what queues behind them.
    bound = LIGHT + (0.0 if heavies == 1 else HEAVY)
    assert np.quantile(times, 0.5) < bound + 0.025, times
    assert np.quantile(times, 0.99) < 2 * bound + 0.150, times
    # And the heavy ones share what is left evenly.
    assert max(runs) - min(runs) <= 2


def test_what_a_run_really_took_is_charged() -> None:
    async def scene() -> list[str]:
        executor = LoopExecutor(asyncio.get_running_loop(), 1)
        order: list[str] = []
        ended = asyncio.Event()

        class Owner: ...

        liar, honest = Owner(), Owner()

        def work(name: str, seconds: float) -> Any:
            def run() -> None:
                order.append(name)
                time.sleep(seconds)

            return run

        def last(_: Any) -> None:
            if len(order) == 5:
                ended.set()

        # It says that it costs nothing, and takes fifty milliseconds.
        executor.offload(work("liar", 0.05), last, owner=liar, cost=0.0)
        while not order:
            await asyncio.sleep(0.001)
        executor.offload(work("blocker", 0.1), last)
        await asyncio.sleep(0.075)
        executor.offload(work("liar", 0.0), last, owner=liar, cost=0.0)
        executor.offload(work("honest", 0.0), last, owner=honest, cost=0.01)
        executor.offload(work("honest", 0.0), last, owner=honest, cost=0.01)
        await ended.wait()
        executor.close()
        return order

    assert asyncio.run(scene()) == ["liar", "blocker", "honest", "honest", "liar"]
