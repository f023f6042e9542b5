"""The engine by itself: what it may do to the core, and when."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

pytest.importorskip("grpc")


class _SlowToStop:
    """The core's server, whose `shutdown` returns late: in between its end has long been told."""

    def __init__(self, real: Any) -> None:
        self._real = real
        self._stopping = False
        self.destroyed = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def shutdown(self, *args: Any) -> None:
        self._stopping = True
        self._real.shutdown(*args)
        time.sleep(0.3)
        self._stopping = False

    def destroy(self) -> None:
        assert not self._stopping, "freed under the hands of the thread that stops it"
        self.destroyed += 1
        self._real.destroy()


def test_the_server_is_freed_only_when_its_shutdown_has_returned() -> None:
    from modelyard.serve.grpc.engine import Engine

    async def life() -> tuple[int, float]:
        engine = Engine(lambda rpc: None, streams=frozenset(), most=8, seconds=1.0, options=[])
        server = engine._server = _SlowToStop(engine._server)
        assert engine.listen("127.0.0.1:0")
        engine.start(asyncio.get_running_loop())
        began = time.monotonic()
        await engine.close(grace=10.0)
        return server.destroyed, time.monotonic() - began

    destroyed, took = asyncio.run(life())
    assert destroyed == 1
    assert took < 5
