"""Where a lane's work happens in the serving process: the event loop, and threads for what is expensive."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any


class LoopExecutor:
    """A `lane.Executor` on an event loop, with a pool of threads beside it."""

    def __init__(self, loop: asyncio.AbstractEventLoop, threads: int) -> None:
        self._loop = loop
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="runtime")
        self.soon: Callable[[Callable[[], None]], object] = loop.call_soon

    def offload(self, work: Callable[[], Any], done: Callable[[Any], None]) -> None:
        """Calls `work` in a thread, then `done` with its result on the loop."""

        def back(future: Future[Any]) -> None:
            self._loop.call_soon_threadsafe(done, future.result())

        self._threads.submit(work).add_done_callback(back)

    def close(self) -> None:
        """Ends the threads after their work."""
        self._threads.shutdown()
