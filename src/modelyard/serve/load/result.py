"""What a run of load measured, and whether it may be believed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from modelyard.serve.load.histogram import Histogram

Mode: TypeAlias = Literal["open", "closed"]

FORMAT = 1
QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99_9": 0.999}
_BUSY = 0.92
_LATE = 0.2
_LATE_SECONDS = 0.0005


@dataclass(frozen=True, slots=True)
class LoadResult:
    """One run. All times in seconds.

    `latency` counts from the intended send time to the whole answer: where a server stalls, the requests
    that should have been sent meanwhile count as late too (no coordinated omission). `service` counts from
    the moment the bytes were written. `lag` is how late the generator itself was: from the intended time to
    the moment it looked, before any wait for a free connection. In a closed loop the intended time is the
    moment of the answer before.

    `latency` holds the 2xx answers, and the requests an open loop gave up on with the time that they had
    waited, a lower bound. Refusals (429, 503 and the like) are quick and would flatter it: they are in
    `statuses` only. `errors` counts the requests without an answer, by cause.
    """

    mode: Mode
    rate: float
    """Requests a second that were intended; 0 in a closed loop."""
    connections: int
    sent: int
    seconds: float
    statuses: Mapping[int, int] = field(default_factory=dict)
    errors: Mapping[str, int] = field(default_factory=dict)
    good: int = 0
    """Answers with 2xx within the deadline."""
    latency: Histogram = field(default_factory=Histogram)
    service: Histogram = field(default_factory=Histogram)
    lag: Histogram = field(default_factory=Histogram)
    busy: float = 0.0
    """The generator's own share of one core."""
    overtime: float = 0.0
    """How much of `seconds` is past the planned end: the time that a backlog took to be answered."""

    @property
    def answered(self) -> int:
        return sum(self.statuses.values())

    @property
    def throughput(self) -> float:
        """Answers a second, of any status."""
        return self.answered / self.seconds if self.seconds else 0.0

    @property
    def goodput(self) -> float:
        return self.good / self.seconds if self.seconds else 0.0

    @property
    def failed(self) -> int:
        """Requests without a 2xx answer."""
        fine = sum(count for status, count in self.statuses.items() if 200 <= status < 300)
        return self.answered - fine + sum(self.errors.values())

    @property
    def limited(self) -> str:
        """What the generator itself added, where that is much; empty when the numbers are the server's."""
        if self.busy > _BUSY:
            return f"the generator used {self.busy:.0%} of its core, so its own speed is what was measured"
        late, median = self.lag.quantile(0.5), self.latency.quantile(0.5)
        if self.mode == "open" and late > max(_LATE * median, _LATE_SECONDS):
            return f"the generator sent {late * 1e3:.2f} ms late at the median, which latency includes"
        return ""

    def merge(self, other: LoadResult) -> LoadResult:
        """Both runs as one: counts and histograms add, times add."""
        return LoadResult(
            self.mode, self.rate, self.connections, self.sent + other.sent, self.seconds + other.seconds,
            _add(self.statuses, other.statuses), _add(self.errors, other.errors), self.good + other.good,
            self.latency.merge(other.latency), self.service.merge(other.service),
            self.lag.merge(other.lag), max(self.busy, other.busy),
            self.overtime + other.overtime,
        )  # fmt: skip

    def to_json(self) -> dict[str, Any]:
        return {
            "format": FORMAT, "mode": self.mode, "rate": self.rate, "connections": self.connections,
            "sent": self.sent, "seconds": self.seconds, "answered": self.answered,
            "throughput": self.throughput, "goodput": self.goodput, "failed": self.failed,
            "busy": self.busy,
            "overtime": self.overtime, "limited": self.limited,
            "statuses": {str(status): count for status, count in sorted(self.statuses.items())},
            "errors": dict(self.errors),
            "latency": quantiles(self.latency), "service": quantiles(self.service),
            "lag": quantiles(self.lag),
            "histogram": self.latency.to_json(),
        }  # fmt: skip


def quantiles(histogram: Histogram) -> dict[str, float | None]:
    """The quantiles that people ask for, in seconds; `None` where nothing was measured."""
    if not histogram.total:
        return {**dict.fromkeys(QUANTILES), "max": None, "mean": None}
    found = {name: histogram.quantile(fraction) for name, fraction in QUANTILES.items()}
    return {**found, "max": histogram.largest, "mean": histogram.mean}


def _add(left: Mapping[Any, int], right: Mapping[Any, int]) -> dict[Any, int]:
    return {key: left.get(key, 0) + right.get(key, 0) for key in {**left, **right}}
