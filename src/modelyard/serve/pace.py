"""How a thread works beside requests: after them, in short turns, and when there is little else to do."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable

_REST = 4.0
"""Times the CPU time of a piece of work that the thread rests after it: it takes a fifth of a core."""
_REST_SECONDS = 0.05
_NICE = 3
"""More would be worse where other processes want the core: now and then the thread holds the interpreter,
and all wait with it."""


def step_back() -> None:
    """Lets requests go before the calling thread where both want the core."""
    if sys.platform == "linux":  # where a thread has a priority of its own.
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)


def go_on() -> None:
    """No rest."""


class Rest:
    """Leaves the core to the requests after each piece of the work of the thread that made it."""

    def __init__(self, pause: Callable[[float], None]) -> None:
        self._pause = pause
        self._used = time.thread_time()

    def __call__(self) -> None:
        used = time.thread_time()
        self._pause(min(_REST_SECONDS, _REST * (used - self._used)))
        self._used = used


class Load:
    """The cores that the process used since the last time it was asked, but for the thread that asks."""

    def __init__(self) -> None:
        self._used = self._moment = 0.0
        self()

    def __call__(self) -> float:
        used, moment = time.process_time() - time.thread_time(), time.monotonic()
        share = (used - self._used) / max(1e-3, moment - self._moment)
        self._used, self._moment = used, moment
        return share
