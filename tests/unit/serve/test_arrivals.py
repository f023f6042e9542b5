"""Requests that wait for a load: one load for all of them, bounded in time and number, answered once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from modelyard.core.clock import SYSTEM_CLOCK
from modelyard.core.errors import RequestError
from modelyard.release.policy import Single
from modelyard.serve.arrivals import Arrivals
from modelyard.serve.router import Endpoint, NotResident, Router

A = "sha256:" + "a" * 64


class Loading:
    """Notes what is wanted."""

    def __init__(self) -> None:
        self.wanted: list[str] = []
        self.error: RequestError | None = None
        self.where = "evicted"

    def want(self, name: str) -> None:
        self.wanted.append(name)

    def trouble(self, name: str) -> RequestError | None:
        return self.error

    def state(self, name: str) -> str:
        return self.where


class Scene:
    def __init__(self, bench: Any, **options: Any) -> None:
        self.bench = bench
        self.router = Router(("e", "f"))
        self.loading = Loading()
        loop = asyncio.get_running_loop()
        options = {"seconds": 5.0} | options
        self.arrivals = Arrivals(self.router, self.loading, loop, SYSTEM_CLOCK, **options)
        self.heard: list[RequestError | None] = []

    def wait(self, seconds: float = 10.0, name: str = "e") -> None:
        self.arrivals.wait(name, time.monotonic() + seconds, self.heard.append)

    def load(self) -> None:
        self.router.swap(Endpoint("e", 1, Single(A), {A: self.bench.served("a")}))
        self.arrivals.arrived("e")

    async def hears(self, count: int) -> list[RequestError | None]:
        deadline = time.monotonic() + 5
        while len(self.heard) < count:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.001)
        await asyncio.sleep(0)
        assert len(self.heard) == count
        return self.heard


def on_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[[Any], None]:
    def run(bench: Any) -> None:
        asyncio.run(test(bench))

    run.__name__ = test.__name__
    run.__doc__ = test.__doc__
    return run


@on_loop
async def test_all_who_wait_go_on_together(bench: Any) -> None:
    scene = Scene(bench)
    with pytest.raises(NotResident):
        scene.router.endpoint("e")
    for _ in range(3):
        scene.wait()
    assert scene.arrivals.waits("e") and scene.arrivals.count == 3 and not scene.heard
    await asyncio.to_thread(scene.load)
    assert await scene.hears(3) == [None] * 3
    assert not scene.arrivals.waits("e") and scene.arrivals.count == 0


@on_loop
async def test_a_load_that_failed_is_said_at_once(bench: Any) -> None:
    scene = Scene(bench)
    scene.wait()
    scene.loading.error = RequestError("bad release", status=503)
    scene.arrivals.arrived("e")
    assert await scene.hears(1) == [scene.loading.error]
    with pytest.raises(RequestError, match="bad release"):
        scene.wait()


@on_loop
async def test_nobody_waits_longer_than_allowed(bench: Any) -> None:
    scene = Scene(bench, seconds=0.05)
    scene.wait(10)
    scene.wait(0.02)
    late, still = await scene.hears(2)
    assert late is not None and late.status == 504
    assert still is not None and still.status == 503 and still.retry_after
    with pytest.raises(RequestError) as caught:
        scene.wait(-1)
    assert caught.value.status == 504 and scene.arrivals.count == 0
    scene.load()
    await asyncio.sleep(0.01)
    assert len(scene.heard) == 2


@on_loop
async def test_only_so_many_wait(bench: Any) -> None:
    scene = Scene(bench, room=2)
    scene.wait()
    scene.wait(name="f")
    with pytest.raises(RequestError) as caught:
        scene.wait()
    assert caught.value.status == 503 and caught.value.retry_after


@on_loop
async def test_what_was_evicted_at_once_is_asked_for_again(bench: Any) -> None:
    scene = Scene(bench)
    scene.wait()
    scene.arrivals.arrived("e")
    while len(scene.loading.wanted) < 2:
        await asyncio.sleep(0)
    assert not scene.heard
    # As long as the store was not asked there is nothing to load.
    scene.loading.where = "unknown"
    scene.arrivals.arrived("e")
    await asyncio.sleep(0.01)
    assert len(scene.loading.wanted) == 2 and not scene.heard
    scene.router.expect(("f",))
    scene.arrivals.arrived("e")
    (error,) = await scene.hears(1)
    assert error is not None and error.status == 404


@on_loop
async def test_a_coroutine_waits_and_may_leave(bench: Any) -> None:
    scene = Scene(bench)
    leaving = asyncio.ensure_future(scene.arrivals.ready("e"))
    staying = asyncio.ensure_future(scene.arrivals.ready("e"))
    await asyncio.sleep(0)
    leaving.cancel()
    await asyncio.to_thread(scene.load)
    await staying
    assert leaving.cancelled() and scene.arrivals.count == 0
