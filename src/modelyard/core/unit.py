"""Quantities with units, as people write them: `5ms`, `1.5 MB`, `2 %`, `30d`."""

from __future__ import annotations

import re

_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "min": 60.0,
            "h": 3600.0, "d": 86400.0, "w": 604800.0}  # fmt: skip
_BYTES = {"b": 1.0, "kb": 1e3, "mb": 1e6, "gb": 1e9, "tb": 1e12, "kib": 1024.0, "mib": 1024.0**2,
          "gib": 1024.0**3}  # fmt: skip
_NUMBER = re.compile(r"\s*([-+]?\d+(?:\.\d*)?(?:[eE][-+]?\d+)?)\s*([A-Za-zµ%]*)\s*\Z")


def seconds(text: str | float | int) -> float:
    """A duration in seconds; a bare number is seconds already.

    >>> seconds("5ms"), seconds("2h"), seconds(3)
    (0.005, 7200.0, 3.0)

    Raises `ValueError` with the units that are known.
    """
    return _quantity(text, _SECONDS, "a duration such as 5ms, 2s, 10m, 1h, 30d", fold=False)


def size(text: str | float | int) -> float:
    """A size in bytes; a bare number is bytes already.

    >>> size("1.5MB"), size("2 KiB")
    (1500000.0, 2048.0)
    """
    return _quantity(text, _BYTES, "a size such as 300kB, 1.5MB, 2GiB", fold=True)


def _quantity(text: str | float | int, units: dict[str, float], rule: str, *, fold: bool) -> float:
    if isinstance(text, bool):
        raise ValueError(f"{text!r} is not {rule}")
    if isinstance(text, int | float):
        return float(text)
    match = _NUMBER.match(text)
    if match is None:
        raise ValueError(f"{text!r} is not {rule}")
    unit = match[2].lower() if fold else match[2]
    if unit and unit not in units:
        raise ValueError(f"{text!r} is not {rule}")
    number = float(match[1])
    # Dividing by the exact reciprocal keeps 5ms equal to 0.005.
    factor = units.get(unit, 1.0)
    return number / round(1 / factor) if factor < 1 else number * factor


def show_seconds(value: float) -> str:
    """A duration for people, three digits.

    >>> show_seconds(0.00123), show_seconds(42.0), show_seconds(7200)
    ('1.23 ms', '42.0 s', '2.00 h')
    """
    for limit, unit, factor in ((1e-6, "ns", 1e9), (1e-3, "µs", 1e6), (1.0, "ms", 1e3),
                                (120.0, "s", 1.0), (7200.0, "min", 1 / 60),
                                (172800.0, "h", 1 / 3600)):  # fmt: skip
        if abs(value) < limit:
            return _three(value * factor) + " " + unit
    if abs(value) <= 7200:
        return _three(value / 3600) + " h"
    return _three(value / 86400) + " d"


def show_size(value: float) -> str:
    """A size for people, in powers of 1000.

    >>> show_size(126_000), show_size(7)
    ('126 kB', '7 B')
    """
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if abs(value) >= factor:
            return f"{_three(value / factor)} {unit}"
    return f"{value:.0f} B"


def _three(value: float) -> str:
    magnitude = abs(value)
    if magnitude >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if magnitude >= 10 else f"{value:.2f}"
