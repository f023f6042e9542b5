"""What a run of a model costs: `a + b * n` seconds for n items, kept from measurements."""

from __future__ import annotations

from math import ceil

STALL = 8.0
"""A run counts as so many times what was expected, at most: the machine may have stood still meanwhile."""
DECAY = 0.98
"""Weight of what was known, at each new measurement: the last fifty runs count."""
GAIN = 0.05
"""Batches grow until an item costs at most this share more than it would in an endless batch."""


class CostModel:
    """A least-squares line through the latest runs; not thread-safe, a run costs it half a microsecond.

    >>> cost = CostModel(0.001)
    >>> for n in (1, 8, 1, 32, 4, 64): cost.observe(n, 0.001 + 0.0005 * n)
    >>> round(cost.seconds(16), 3), cost.items_within(0.005)
    (0.009, 8)
    """

    __slots__ = ("_n", "_nn", "_ns", "_s", "_w", "fixed", "item")

    def __init__(self, single: float) -> None:
        if not single > 0:
            raise ValueError(f"a run takes time, got {single}")
        self.fixed = 0.0
        """Seconds of a run however small (a)."""
        self.item = single
        """Seconds that each item adds (b)."""
        # The first measurement stands in as a run of one item.
        self._w = self._n = self._nn = 1.0
        self._s = self._ns = single

    def observe(self, items: int, seconds: float) -> None:
        """Takes one run into account.

        One that took far longer than expected counts in part: a stall must not refuse the next thousand
        requests, while a model that has become slow is known for it after a few runs.
        """
        seconds = min(seconds, STALL * self.seconds(items))
        w = self._w = self._w * DECAY + 1.0
        n = self._n = self._n * DECAY + items
        nn = self._nn = self._nn * DECAY + items * items
        s = self._s = self._s * DECAY + seconds
        ns = self._ns = self._ns * DECAY + items * seconds
        spread = w * nn - n * n
        if spread > 0.01 * n * n:
            item = (w * ns - n * s) / spread
            fixed = (s - item * n) / w
            if item > 0 and fixed >= 0:
                self.item, self.fixed = item, fixed
                return
        # All runs were of one size, or noise turned the line over: the sum alone is known.
        if self.fixed * w < s:
            self.item = (s - self.fixed * w) / n
        else:
            self.fixed, self.item = 0.0, s / n

    def seconds(self, items: int) -> float:
        """What a run of so many items is expected to take."""
        return self.fixed + self.item * items

    def items_within(self, seconds: float) -> int:
        """How many items a run may have to end within that time; at least one."""
        return max(1, int((seconds - self.fixed) / self.item + 1e-9))

    @property
    def worthwhile(self) -> int:
        """The batch from which on more items gain nothing but waiting."""
        return max(1, ceil(self.fixed / (GAIN * self.item)))

    def backlog(self, items: int, cap: int) -> float:
        """What it takes to work off so many items in batches of at most `cap`."""
        return ceil(items / cap) * self.fixed + items * self.item
