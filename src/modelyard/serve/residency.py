"""Which endpoints stay in memory: GreedyDual-Size over measured bytes and measured seconds, pure.

An endpoint's worth is the seconds that it takes to load it again, for each byte that it holds, above a
floor that rises with every eviction (Cao & Irani, "Cost-aware WWW proxy caching algorithms", USENIX 1997).
Whoever is used is lifted to the floor of that moment, so that what is not used sinks. The floor moves only
when something is evicted: uses may be told late, all at once, and the choice is the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from math import inf


@dataclass(slots=True)
class _Resident:
    parts: Mapping[Hashable, int]
    density: float
    """Seconds of loading for a byte."""
    worth: float
    used: int


class Residency:
    """Keeps account of what is resident and says what has to go; holds no model itself.

    `parts` are the pieces of memory that an endpoint holds, by an identity under which others may hold
    the same; such a piece counts once. Never chosen is what is pinned, in use, or just being loaded.

    >>> residency = Residency(budget=100)
    >>> residency.admit("a", {"weights": 60}, seconds=0.01)
    >>> residency.admit("b", {"other": 60}, seconds=0.5)
    >>> residency.make_room(), residency.bytes
    (['a'], 60)
    """

    def __init__(self, budget: float = inf, pinned: frozenset[str] = frozenset()) -> None:
        self.budget = budget
        self.pinned = pinned
        self._residents: dict[str, _Resident] = {}
        self._holders: Counter[Hashable] = Counter()
        self._sizes: dict[Hashable, int] = {}
        self._floor = 0.0
        self._time = 0
        self.bytes = 0
        """What all residents hold."""

    def __contains__(self, name: str) -> bool:
        return name in self._residents

    def __len__(self) -> int:
        return len(self._residents)

    def admit(self, name: str, parts: Mapping[Hashable, int], seconds: float) -> None:
        """An endpoint is resident now, or holds other parts than before; `seconds` is what loading took."""
        self.remove(name)
        for part, size in parts.items():
            if part not in self._sizes:
                self._sizes[part] = size
                self.bytes += size
            self._holders[part] += 1
        density = seconds / max(1, sum(parts.values()))
        self._time += 1
        self._residents[name] = _Resident(dict(parts), density, self._floor + density, self._time)

    def use(self, name: str) -> None:
        """An endpoint was used since it was last told."""
        resident = self._residents.get(name)
        if resident is not None:
            self._time += 1
            resident.worth = self._floor + resident.density
            resident.used = self._time

    def remove(self, name: str) -> None:
        """An endpoint is not resident any more."""
        resident = self._residents.pop(name, None)
        for part in resident.parts if resident is not None else ():
            self._holders[part] -= 1
            if not self._holders[part]:
                del self._holders[part]
                self.bytes -= self._sizes.pop(part)

    def make_room(
        self, room: int = 0, *, in_use: Callable[[str], bool] = lambda name: False, keep: str | None = None
    ) -> list[str]:
        """Removes what has to go so that `room` more bytes fit, and names it; the least worth goes first.

        Where that is not enough, because the rest may not go, less is removed than would be needed.
        """
        gone: list[str] = []
        if self.bytes + room <= self.budget:
            return gone
        held = {name for name in self._residents if name == keep or name in self.pinned or in_use(name)}
        fixed = {part for name in held for part in self._residents[name].parts}
        free = sorted(
            # What would free nothing, since all of it is held by those that stay, is no candidate.
            (name for name, it in self._residents.items() if name not in held and it.parts.keys() - fixed),
            key=lambda name: (self._residents[name].worth, self._residents[name].used),
        )
        for name in free:
            if self.bytes + room <= self.budget:
                break
            self._floor = max(self._floor, self._residents[name].worth)
            self.remove(name)
            gone.append(name)
        return gone
