"""Which calls go into the next run of a model: a pure machine, no clock, no thread, no runtime.

It is work-conserving: nothing waits for company. Whoever runs the model asks for the next batch the
moment it is free and gets what is there. Calls of one batch have the same shapes apart from the first
dimension; the group whose head waits longest goes first, and inside a group first come is first served.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable
from typing import Generic, Protocol, TypeVar


class Waiting(Protocol):
    """What can wait: how many items it brings, until when, and whether its caller has gone."""

    @property
    def rows(self) -> int: ...

    @property
    def gone(self) -> bool: ...

    @property
    def deadline(self) -> float: ...


W = TypeVar("W", bound=Waiting)


class Batcher(Generic[W]):
    """The calls that wait for one model; `room` bounds their items."""

    __slots__ = ("_arrivals", "_groups", "cut", "left", "room", "waiting")

    def __init__(self, room: int) -> None:
        if room < 1:
            raise ValueError(f"there must be room for one item, got {room}")
        self.room = room
        self.waiting = 0
        self.left: list[tuple[W, bool]] = []
        """Calls that `take` left out, and whether they were late; whoever reads them clears them."""
        self.cut = False
        """Whether the last batch left calls behind that would have fitted it but for the limit."""
        self._groups: dict[Hashable, deque[tuple[int, W]]] = {}
        self._arrivals = 0

    def offer(self, call: W, shape: Hashable = None) -> bool:
        """Takes a call in, unless there is no room: `False`. An empty queue takes a call of any size."""
        if self.waiting and self.waiting + call.rows > self.room:
            return False
        self._arrivals += 1
        group = self._groups.get(shape)
        if group is None:
            group = self._groups[shape] = deque()
        group.append((self._arrivals, call))
        self.waiting += call.rows
        return True

    def take(self, size: int | Callable[[W, float], int], now: float = 0.0) -> tuple[list[W], int]:
        """The next batch and its items, nothing when nothing waits.

        `size` bounds the items (a larger single call goes alone), or is asked with the first call. Calls
        whose caller has gone or whose deadline is not after `now` are left out, and are in `left`.
        """
        batch: list[W] = []
        taken = 0
        while self._groups and not batch:
            groups = self._groups
            if len(groups) == 1:
                shape, group = next(iter(groups.items()))
            else:
                shape, group = min(groups.items(), key=lambda pair: pair[1][0][0])
            cap = 1
            while group:
                call = group[0][1]
                rows = call.rows
                if call.gone or call.deadline <= now:
                    group.popleft()
                    self.waiting -= rows
                    self.left.append((call, not call.gone))
                    continue
                if not taken:
                    cap = size if isinstance(size, int) else size(call, now)
                elif taken + rows > cap:
                    break
                group.popleft()
                self.waiting -= rows
                batch.append(call)
                taken += rows
            self.cut = bool(group)
            if not group:
                del groups[shape]
        return batch, taken
