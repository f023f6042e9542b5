"""Values with their units, for people."""

from __future__ import annotations

import math

from modelyard.core.unit import show_seconds, show_size
from modelyard.measure.measurement import Measurement, Verdict


def quantity(value: float, unit: str) -> str:
    """A value in its unit.

    >>> quantity(0.0042, "s"), quantity(126_000, "bytes"), quantity(0.97834, "")
    ('4.20 ms', '126 kB', '0.9783')
    """
    if not math.isfinite(value):
        return "not measured"
    if unit == "s":
        return show_seconds(value)
    if unit in ("bytes", "B"):
        return show_size(value)
    return f"{value:.4g}" + (f" {unit}" if unit else "")


def interval(item: Measurement) -> str:
    """A measurement with its interval, open ends as dots.

    >>> interval(Measurement("accuracy", 0.9, 0.85, 0.94))
    '0.9 [0.85, 0.94]'
    """
    shown = quantity(item.value, item.unit)
    if item.low is None and item.high is None:
        return shown
    low, high = ("…" if edge is None else quantity(edge, item.unit) for edge in (item.low, item.high))
    return f"{shown} [{low}, {high}]"


def asked(verdict: Verdict) -> str:
    """The bound of a requirement's verdict with its direction.

    >>> asked(Verdict("requirement.accuracy", True, "the measured value 1 is at least 0.9", (), 0.9))
    '≥ 0.9'
    """
    if verdict.bound is None:
        return "–"
    unit = verdict.measurements[0].unit if verdict.measurements else ""
    return f"{'≥' if 'at least' in verdict.why else '≤'} {quantity(verdict.bound, unit)}"
