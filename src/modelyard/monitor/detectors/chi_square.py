"""Categories: the chi-square test of homogeneity, with rare categories counted together."""

from __future__ import annotations

from dataclasses import dataclass

from modelyard.data.profile import ColumnProfile
from modelyard.measure.distance import chi_square
from modelyard.monitor.detector import Shift
from modelyard.monitor.detectors.fisher import category_counts, category_shift
from modelyard.monitor.options import MonitorOptions


@dataclass(frozen=True, slots=True)
class ChiSquare:
    """The Jensen-Shannon distance judged by `drift_floor`, significant by Pearson's chi-square.

    More powerful than `fisher` where many categories move a little, but its p-value is approximate in the
    far tail where a long watch lives.
    """

    name: str = "chi-square"

    def compare(
        self, reference: ColumnProfile, window: ColumnProfile, options: MonitorOptions
    ) -> Shift | None:
        sides = category_counts(reference, window)
        if sides is None:
            return None
        names, before, after = sides
        p_value = chi_square(before, after).p_value
        return category_shift(names, before, after, 1.0 if p_value is None else p_value, options)
