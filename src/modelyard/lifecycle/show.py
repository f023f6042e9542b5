"""Measurements as people read them, in one place, so that every table and headline agrees."""

from __future__ import annotations

import math

from modelyard.core.unit import show_seconds, show_size
from modelyard.measure.measurement import Measurement


def show_value(value: float, unit: str) -> str:
    """A value with its unit.

    >>> show_value(0.00123, "s"), show_value(126000, "bytes"), show_value(0.97812, "")
    ('1.23 ms', '126 kB', '0.978')
    """
    if math.isnan(value):
        return "not measurable"
    if unit == "s":
        return show_seconds(value)
    if unit == "bytes":
        return show_size(value)
    if unit == "items/s":
        return f"{value:,.0f}/s"
    text = f"{value:.4g}" if abs(value) >= 10 else f"{value:.3f}"
    return f"{text} {unit}".rstrip()


def show_interval(measured: Measurement) -> str:
    """The interval alone, or nothing.

    >>> show_interval(Measurement("accuracy", 0.9, 0.88, 0.92))
    '[0.880, 0.920]'
    """
    if measured.low is None or measured.high is None:
        return ""
    return f"[{show_value(measured.low, measured.unit)}, {show_value(measured.high, measured.unit)}]"


def show_measurement(measured: Measurement) -> str:
    """Metric, value and interval.

    >>> show_measurement(Measurement("accuracy", 0.9, 0.88, 0.92))
    'accuracy 0.900 [0.880, 0.920]'
    """
    parts = (measured.metric, show_value(measured.value, measured.unit), show_interval(measured))
    return " ".join(part for part in parts if part)
