"""A gambler's wealth against every candidate mean at once: the engine of sequential tests on bounded values.

If the mean really is m, a bet on it is fair and wealth stays small: P(wealth ever reaches 1/a) <= a (Ville's
inequality). Means against which wealth grew large are refuted, at whatever moment one looks. The bets are the
hedged predictable plug-in of Waudby-Smith and Ramdas (2024, "Estimating means of bounded random variables by
betting", JRSS-B 86, equations 23 to 26).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from modelyard.measure.metric import Array, Floats

CELLS = 1000
_EDGES = np.linspace(0.0, 1.0, CELLS + 1)
_CAP = 0.75
_DESIGN = 0.05
_CHUNK = 256


def _flat() -> Floats:
    return np.zeros(CELLS + 1)


@dataclass(frozen=True, slots=True, eq=False)
class Wealth:
    """Log wealth of bets that the mean is above (`up`) and below (`down`) each edge of a grid over [0, 1].

    Bets depend only on values already seen, so the order of values matters and looking does not.
    """

    n: int = 0
    total: float = 0.0
    spread: float = 0.0
    """The sum of squared deviations from the running mean."""
    up: Floats = field(default_factory=_flat)
    down: Floats = field(default_factory=_flat)

    def after(self, values: Array) -> Wealth:
        """The wealth after betting on each of the values (in [0, 1]) in turn."""
        state = self
        for start in range(0, len(values), _CHUNK):
            state = state._chunk(np.asarray(values[start : start + _CHUNK], dtype=np.float64))
        return state

    def _chunk(self, x: Floats) -> Wealth:
        seen = self.n + np.arange(1, len(x) + 1)
        means = (0.5 + self.total + np.cumsum(x)) / (seen + 1)
        spreads = self.spread + np.cumsum((x - means) ** 2)
        # What is bet on a value must not know it: the variance is that of the values before.
        variance = (0.25 + np.append(self.spread, spreads[:-1])) / seen
        bets = np.sqrt(2 * math.log(2 / _DESIGN) / (variance * seen * np.log1p(seen)))
        gain = x[:, None] - _EDGES
        with np.errstate(divide="ignore"):
            most_up, most_down = _CAP / _EDGES, _CAP / (1 - _EDGES)
        up = np.log1p(np.minimum(bets[:, None], most_up) * gain).sum(axis=0)
        down = np.log1p(-np.minimum(bets[:, None], most_down) * gain).sum(axis=0)
        return Wealth(
            self.n + len(x), self.total + float(x.sum()), float(spreads[-1]), self.up + up, self.down + down
        )

    def cells(self, kept: float = 0.0) -> Floats:
        """Log wealth that is at least reached against every mean of each grid cell [CELLS].

        `kept` is the share of the first wealth that is never bet: it stops losses, which pays where the
        wealths of two arms are multiplied and only one of them has something to say.

        Wealth falls with the mean for bets upward and rises for bets downward, so within a cell both are at
        least what they are at one of its ends: the grid costs width, never validity.
        """
        bets = np.logaddexp(self.up[1:], self.down[:-1]) + math.log((1 - kept) / 2)
        return np.asarray(np.logaddexp(bets, math.log(kept)) if kept else bets)
