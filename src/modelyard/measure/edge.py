"""Where a range ends: the bisection behind intervals that invert a test."""

from __future__ import annotations

from collections.abc import Callable


def edge(
    refuted: Callable[[float], bool], inside: float, outside: float, *, halvings: int
) -> tuple[float, float]:
    """The last value that is not refuted and the first that is, between an estimate and the range's end.

    `inside` is not refuted; from there on to `outside`, once refuted is always refuted. Both are `outside`
    when not even that is. An interval that must not be too short ends at the second.

    >>> [round(end, 6) for end in edge(lambda x: x > 0.3, 0.0, 1.0, halvings=30)]
    [0.3, 0.3]
    >>> edge(lambda x: False, 0.0, 1.0, halvings=30)
    (1.0, 1.0)
    """
    if not refuted(outside):
        return outside, outside
    for _ in range(halvings):
        middle = (inside + outside) / 2
        if refuted(middle):
            outside = middle
        else:
            inside = middle
    return inside, outside
