"""Requests from Granian's threads to a plain callback on the event loop, without a task for each.

Granian's own schedulers make a task a request, which costs two turns of the loop more. Made for its 2.8.
"""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Callable
from typing import Any

_Base: Any = importlib.import_module("granian._granian").CallbackScheduler


def callback_scheduler(loop: asyncio.AbstractEventLoop, begin: Callable[[Any], None]) -> Any:
    """A scheduler for a Granian worker that calls `begin` with each request's watcher on the loop.

    `begin` must not raise. It runs in the context in which the scheduler was made.
    """
    call_soon = loop.call_soon_threadsafe

    class Scheduler(_Base):  # type: ignore[misc]
        __slots__ = ()

        def __init__(self, *_: Any) -> None:
            super().__init__()
            context = self._ctx

            def schedule(watcher: Any) -> None:
                call_soon(begin, watcher, context=context)

            self._schedule_fn = schedule  # type: ignore[misc]

    return Scheduler(loop, begin, None, None, None)
