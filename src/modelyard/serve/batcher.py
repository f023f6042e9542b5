"""Which calls go into the next run of a model: a pure machine, no clock, no thread, no runtime.

It is work-conserving: nothing waits for company. Whoever runs the model asks for the next batch the
moment it is free and gets what is there. Calls of one batch have the same shapes apart from the first
dimension; the group whose head waits longest goes first, and inside a group first come is first served.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from typing import Generic, Protocol, TypeVar


class Waiting(Protocol):
    """What can wait: how many items it brings, and whether its caller has gone."""

    @property
    def rows(self) -> int: ...

    @property
    def gone(self) -> bool: ...


W = TypeVar("W", bound=Waiting)


class Batcher(Generic[W]):
    """The calls that wait for one model.

    `items` bounds a batch (a larger single call goes alone), `room` the items that may wait.
    """

    __slots__ = ("_arrivals", "_groups", "items", "room", "waiting")

    def __init__(self, items: int, room: int) -> None:
        if items < 1 or room < 1:
            raise ValueError(f"a batch holds at least one item, got {items} and room for {room}")
        self.items = items
        self.room = room
        self.waiting = 0
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

    def take(self) -> list[W]:
        """The next batch, empty when nothing waits; calls whose caller has gone are left out."""
        batch: list[W] = []
        while self._groups and not batch:
            groups = self._groups
            if len(groups) == 1:
                shape, group = next(iter(groups.items()))
            else:
                shape, group = min(groups.items(), key=lambda pair: pair[1][0][0])
            taken = 0
            while group:
                call = group[0][1]
                if call.gone:
                    group.popleft()
                    self.waiting -= call.rows
                    continue
                if taken and taken + call.rows > self.items:
                    break
                group.popleft()
                self.waiting -= call.rows
                batch.append(call)
                taken += call.rows
            if not group:
                del groups[shape]
        return batch
