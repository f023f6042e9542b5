"""Numbers: the Kolmogorov-Smirnov test on the buckets of two sketches."""

from __future__ import annotations

from dataclasses import dataclass

from modelyard.data.columnprofile import NumericProfile
from modelyard.data.profile import ColumnProfile
from modelyard.measure.distance import ks_counts, psi
from modelyard.monitor.detector import Shift
from modelyard.monitor.detectors.buckets import aligned, grouped
from modelyard.monitor.detectors.words import moved
from modelyard.monitor.options import MonitorOptions


@dataclass(frozen=True, slots=True)
class KolmogorovSmirnov:
    """The largest gap between the distributions of the finite values, 0 to 1, judged by `drift_floor`.

    Both sides are rounded to the sketch's buckets (1 %), which can only make the gap smaller and the p-value
    larger. The details of a relevant shift give the population stability index over the reference's tenths.
    """

    name: str = "ks"

    def compare(
        self, reference: ColumnProfile, window: ColumnProfile, options: MonitorOptions
    ) -> Shift | None:
        if not isinstance(reference, NumericProfile) or not isinstance(window, NumericProfile):
            return None
        sides = aligned(reference, window)
        if sides is None:
            return None
        _, before, after = sides
        distance = ks_counts(before, after)
        relevant = distance.statistic >= options.drift_floor
        details = {"before": reference.mean, "after": window.mean}
        if relevant:
            details["psi"] = psi(*grouped(before, after, 10)).statistic
        return Shift(
            effect=distance.statistic,
            p_value=1.0 if distance.p_value is None else distance.p_value,
            relevant=relevant,
            text=f"{moved(reference, window, relevant=relevant)} (KS {distance.statistic:.2f})",
            rows=window.finite,
            details=details,
        )
