"""The learning rate as a pure function of the step, so that a resumed training needs no memory of it."""

from __future__ import annotations

import math


def rate(kind: str, step: int, total: int, peak: float) -> float:
    """The learning rate of a step, from 0 to `total - 1`.

    `onecycle` rises from a 25th of the peak in the first 30 % and falls along a cosine to almost nothing
    (Smith and Topin 2018); `cosine` falls from the peak to almost nothing; `constant` stays.

    >>> [round(rate("onecycle", step, 11, 1.0), 3) for step in (0, 3, 10)]
    [0.04, 1.0, 0.0]
    """
    if kind == "constant" or total <= 1:
        return peak
    start, end, turn = peak / 25.0, peak / 25e4, 0.3 if kind == "onecycle" else 0.0
    done = step / (total - 1)
    if done < turn:
        return _cosine(start, peak, done / turn)
    return _cosine(peak, end, (done - turn) / (1.0 - turn))


def _cosine(begin: float, end: float, share: float) -> float:
    return end + (begin - end) * (1.0 + math.cos(math.pi * share)) / 2.0
