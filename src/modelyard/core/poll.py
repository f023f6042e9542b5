"""Waiting for what another process does: asked again and again, for no longer than was said."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def until(condition: Callable[[], T], seconds: float = 20.0, *, every: float = 0.02) -> T:
    """Asks until the answer is true or the time is over, at least once; returns the last answer.

    What the condition raises ends the wait.

    >>> answers = iter([0, 0, 3])
    >>> until(lambda: next(answers), 5, every=0.001), until(lambda: None, 0)
    (3, None)
    """
    deadline = time.monotonic() + seconds
    while True:
        found = condition()
        if found or time.monotonic() >= deadline:
            return found
        time.sleep(every)
