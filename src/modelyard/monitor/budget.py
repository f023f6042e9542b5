"""One false-alarm budget over all features of a window and over all windows of a watch.

Look `k` may spend `budget / (k (k + 1))`; these shares sum to the budget over all looks for ever, so by the
union bound a watch on clean traffic raises any alarm at all with at most that probability, however the
windows depend on each other (they share their reference). Within a look Holm's step-down procedure divides
the share over the hypotheses, again whatever their dependence. Since p-values of a real shift fall
exponentially with the rows, the price is only logarithmic: at look 10,000 a window needs about twice the rows
of look 100.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def share(budget: float, look: int) -> float:
    """What look number `look` (from 1) may spend.

    >>> [round(share(0.06, look), 4) for look in (1, 2, 3)]
    [0.03, 0.01, 0.005]
    >>> bool(sum(share(0.05, look) for look in range(1, 100_000)) <= 0.05)
    True
    """
    if look < 1:
        raise ValueError(f"looks count from 1: {look}")
    return budget / (look * (look + 1.0))


def holm(p_values: npt.NDArray[np.float64], alpha: float) -> npt.NDArray[np.bool_]:
    """Which hypotheses fall at the family-wise level `alpha` (Holm, 1979); NaN never falls.

    >>> holm(np.array([0.001, 0.04, 0.02, np.nan]), 0.05).tolist()
    [True, False, False, False]
    """
    values = np.where(np.isnan(p_values), 1.0, p_values)
    order = np.argsort(values, kind="stable")
    levels = alpha / np.arange(len(values), 0, -1)
    holds = values[order] > levels
    stop = int(np.argmax(holds)) if holds.any() else len(values)
    fallen = np.zeros(len(values), dtype=np.bool_)
    fallen[order[:stop]] = True
    return fallen
