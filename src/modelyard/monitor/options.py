"""What a monitor is allowed: its false-alarm budget, the effects that matter, the size of a window."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class MonitorOptions:
    """How windows of live traffic are judged.

    `false_alarms` is the one declared budget: the probability that a monitor which watches clean traffic
    for ever, over all its windows and all its features together, raises any statistical alarm at all.
    An alarm also needs an effect of at least its floor, so that a large window does not fire on nothing.

    >>> MonitorOptions(false_alarms=0.0)
    Traceback (most recent call last):
    ...
    ValueError: false_alarms must lie between 0 and 1: 0.0
    """

    false_alarms: float = 0.05
    """Probability of any false alarm, ever (see `monitor.budget`)."""
    min_rows: int = 200
    """Fewer answered rows than this are not judged, and the report says so."""
    min_feedback: int = 50
    """Fewer labelled rows than this do not judge quality."""
    drift_floor: float = 0.1
    """Smallest drift that matters: a Kolmogorov-Smirnov or Jensen-Shannon distance, 0 to 1."""
    missing_floor: float = 0.05
    """Smallest change of a missing rate that matters, as a difference of shares."""
    breach_max: float = 0.01
    """Share of rows that may break the contract."""
    error_max: float = 0.01
    """Share of requests that may fail where the project states no `error_rate` requirement."""
    stale_after: float | None = None
    """Age of a release in seconds from which it is stale; `None` sets no limit."""
    confidence: float = 0.95
    """Of the intervals that are shown."""
    detectors: tuple[str, ...] = ("ks", "fisher", "missing")
    """Names in `monitor.detectors.catalogue`."""
    window_rows: int = 1000
    """A window closes when it holds so many rows ..."""
    window_seconds: float = 3600.0
    """... or when so much time has passed since it opened."""
    settle: float = 2.0
    """Rows younger than this many seconds wait, because another worker may still write older ones."""
    seed: int = 0
    """Of the bootstrap intervals."""

    def __post_init__(self) -> None:
        for name in ("false_alarms", "confidence"):
            if not 0.0 < getattr(self, name) < 1.0:
                raise ValueError(f"{name} must lie between 0 and 1: {getattr(self, name)}")
        for name in ("min_rows", "min_feedback", "window_rows"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1: {getattr(self, name)}")
        for name in ("drift_floor", "missing_floor", "breach_max", "error_max"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"{name} is a share from 0 to 1: {getattr(self, name)}")
        if self.window_seconds <= 0 or self.settle < 0:
            raise ValueError("window_seconds must be above 0 and settle not below it")

    def to_json(self) -> dict[str, Any]:
        return {name: _plain(getattr(self, name)) for name in self.__slots__}

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> MonitorOptions:
        known = {name: value[name] for name in MonitorOptions.__slots__ if name in value}
        if "detectors" in known:
            known["detectors"] = tuple(known["detectors"])
        return MonitorOptions(**known)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
