"""Numbers: the population stability index over the reference's tenths."""

from __future__ import annotations

from dataclasses import dataclass

from modelyard.data.columnprofile import NumericProfile
from modelyard.data.profile import ColumnProfile
from modelyard.measure.distance import chi_square, jensen_shannon, psi
from modelyard.monitor.detector import Shift
from modelyard.monitor.detectors.buckets import aligned, grouped
from modelyard.monitor.detectors.words import moved
from modelyard.monitor.options import MonitorOptions


@dataclass(frozen=True, slots=True)
class StabilityIndex:
    """The Jensen-Shannon distance over ten bins judged by `drift_floor`, with the stability index in words.

    It sees changes of spread that leave the middle alone better than `ks`; its chi-square p-value is
    approximate in the far tail.
    """

    name: str = "psi"

    def compare(
        self, reference: ColumnProfile, window: ColumnProfile, options: MonitorOptions
    ) -> Shift | None:
        if not isinstance(reference, NumericProfile) or not isinstance(window, NumericProfile):
            return None
        sides = aligned(reference, window)
        if sides is None:
            return None
        before, after = grouped(sides[1], sides[2], 10)
        distance = jensen_shannon(before, after).statistic
        index = psi(before, after).statistic
        p_value = chi_square(before, after).p_value
        relevant = distance >= options.drift_floor
        return Shift(
            effect=distance,
            p_value=1.0 if p_value is None else p_value,
            relevant=relevant,
            text=f"{moved(reference, window, relevant=relevant)} (PSI {index:.2f})",
            rows=window.finite,
            details={"jensen_shannon": distance, "psi": index},
        )
