"""Categories: Fisher's exact test of every category, the smallest p-value times their number."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from modelyard.data.columnprofile import CategoricalProfile
from modelyard.data.profile import ColumnProfile
from modelyard.measure.distance import jensen_shannon, psi
from modelyard.monitor.detector import Shift
from modelyard.monitor.options import MonitorOptions

OTHER = "values that are not tracked"


@dataclass(frozen=True, slots=True)
class Fisher:
    """The Jensen-Shannon distance, 0 to 1, judged by `drift_floor`; significance exact for each category.

    A chi-square p-value is only good near 5 %: with 5 expected rows, its 1e-18 is really 1e-10. The shares
    of a false-alarm budget are that small, so this one is exact (hypergeometric) at every size.
    """

    name: str = "fisher"

    def compare(
        self, reference: ColumnProfile, window: ColumnProfile, options: MonitorOptions
    ) -> Shift | None:
        sides = category_counts(reference, window)
        if sides is None:
            return None
        names, before, after = sides
        p_value = min(1.0, float(np.min(two_sided(before, after))) * len(names))
        return category_shift(names, before, after, p_value, options)


def category_counts(
    reference: ColumnProfile, window: ColumnProfile
) -> tuple[list[str], npt.NDArray[np.float64], npt.NDArray[np.float64]] | None:
    """Both sides' counts of every category seen on either, missing ones left out; `None` with nothing."""
    if not isinstance(reference, CategoricalProfile) or not isinstance(window, CategoricalProfile):
        return None
    names = list(dict.fromkeys([*reference.counts, *window.counts]))
    before = np.array([*(reference.counts.get(name, 0) for name in names), reference.other], dtype=np.float64)
    after = np.array([*(window.counts.get(name, 0) for name in names), window.other], dtype=np.float64)
    if not before.sum() or not after.sum():
        return None
    return [*names, OTHER], before, after


def category_shift(
    names: list[str],
    before: npt.NDArray[np.float64],
    after: npt.NDArray[np.float64],
    p_value: float,
    options: MonitorOptions,
) -> Shift:
    """The shift that both tests of categories report, told by the category that moved most."""
    distance = jensen_shannon(before, after).statistic
    shares = before / before.sum(), after / after.sum()
    most = int(np.argmax(np.abs(shares[1] - shares[0])))
    named = names[most] if names[most] == OTHER else repr(names[most])
    return Shift(
        effect=distance,
        p_value=p_value,
        relevant=distance >= options.drift_floor,
        text=f"share of {named} moved from {shares[0][most]:.1%} to {shares[1][most]:.1%} "
        f"(Jensen-Shannon {distance:.2f})",
        rows=int(after.sum()),
        details={
            "jensen_shannon": distance,
            "psi": psi(before, after).statistic,
            "before": float(shares[0][most]),
            "after": float(shares[1][most]),
        },
    )


def two_sided(before: npt.NDArray[np.float64], after: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The exact p-value that each count has the same share on both sides: twice the smaller tail."""
    from scipy import stats

    n, m = int(before.sum()), int(after.sum())
    found, both = np.rint(after), np.rint(before + after)
    p_values = np.ones(len(found))
    free = (both > 0) & (both < n + m)
    if not free.any():
        return p_values
    law = (n + m, both[free], m)
    below = stats.hypergeom.cdf(found[free], *law)
    above = stats.hypergeom.sf(found[free] - 1, *law)
    p_values[free] = np.clip(2.0 * np.minimum(below, above), 0.0, 1.0)
    return p_values
