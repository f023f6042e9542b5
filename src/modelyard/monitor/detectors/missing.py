"""Any column: the share of rows that lack a value."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from modelyard.data.columnprofile import NumericProfile
from modelyard.data.profile import ColumnProfile
from modelyard.monitor.detector import Shift
from modelyard.monitor.detectors.fisher import two_sided
from modelyard.monitor.options import MonitorOptions


@dataclass(frozen=True, slots=True)
class Missing:
    """The difference of the missing rates (null or NaN), judged by `missing_floor`, Fisher's exact test."""

    name: str = "missing"

    def compare(
        self, reference: ColumnProfile, window: ColumnProfile, options: MonitorOptions
    ) -> Shift | None:
        if not reference.count or not window.count:
            return None
        before, after = reference.missing_rate, window.missing_rate
        lacking = [_lacking(reference), _lacking(window)]
        p_values = two_sided(
            np.array([lacking[0], reference.count - lacking[0]], dtype=np.float64),
            np.array([lacking[1], window.count - lacking[1]], dtype=np.float64),
        )
        return Shift(
            effect=abs(after - before),
            p_value=float(p_values[0]),
            relevant=abs(after - before) >= options.missing_floor,
            text=f"missing rate moved from {before:.1%} to {after:.1%}",
            rows=window.count,
            details={"before": before, "after": after},
        )


def _lacking(side: ColumnProfile) -> int:
    return side.missing + side.nan if isinstance(side, NumericProfile) else side.missing
