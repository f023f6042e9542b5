"""How long work tells how far it is, without knowing who looks."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

Progress: TypeAlias = Callable[[float, str], None]
"""Called with the fraction done (0 to 1) and a short text; must be quick and must not raise."""


def quiet(fraction: float, text: str) -> None:
    """A `Progress` that nobody looks at."""


def part(progress: Progress, start: float, end: float) -> Progress:
    """A `Progress` for a part of the work: its 0 to 1 becomes `start` to `end` of the whole.

    >>> part(lambda fraction, text: print(fraction, text), 0.5, 1.0)(0.5, "half of the second half")
    0.75 half of the second half
    """
    return lambda fraction, text: progress(start + (end - start) * min(max(fraction, 0.0), 1.0), text)
