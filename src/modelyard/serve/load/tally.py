"""Counts what a run saw, cheaply: raw numbers while it runs, a result at the end."""

from __future__ import annotations

from array import array

from modelyard.serve.load.histogram import Histogram
from modelyard.serve.load.result import LoadResult, Mode

_FOLD = 1 << 16


class Tally:
    """Takes each request's times; folds them into histograms now and then, so memory stays small."""

    def __init__(self, *, since: float, deadline: float) -> None:
        self._since = since
        self._deadline = deadline
        self._latency, self._service, self._lag = (Pile() for _ in range(3))
        self._statuses: dict[int, int] = {}
        self._errors: dict[str, int] = {}
        self._good = 0
        self._last = since
        self.sent = 0

    def late(self, intended: float, now: float) -> None:
        """The generator looked at `now` for a request due at `intended`."""
        if intended >= self._since:
            self._lag.add(now - intended)

    def count_sent(self, intended: float) -> None:
        if intended >= self._since:
            self.sent += 1

    def done(self, intended: float, sent: float, now: float, status: int, why: str) -> None:
        """A request ended; those intended before the warm-up's end are not counted."""
        if intended < self._since:
            return
        if status == 0:
            self._errors[why] = self._errors.get(why, 0) + 1
            return
        self._statuses[status] = self._statuses.get(status, 0) + 1
        self._last = now
        if not 200 <= status < 300:
            return
        latency = now - intended
        self._latency.add(latency)
        self._service.add(now - sent)
        if latency <= self._deadline:
            self._good += 1

    def gave_up(self, intended: float, now: float, why: str) -> None:
        """A request that the run ended without an answer to; it waited at least until now."""
        if intended >= self._since:
            self._errors[why] = self._errors.get(why, 0) + 1
            self._latency.add(now - intended)

    def result(self, mode: Mode, rate: float, connections: int, seconds: float, busy: float) -> LoadResult:
        """The run's result; where answers came after the planned `seconds`, the time they took counts."""
        took = max(seconds, self._last - self._since)
        return LoadResult(
            mode, rate, connections, self.sent, took, dict(self._statuses), dict(self._errors), self._good,
            self._latency.histogram(), self._service.histogram(), self._lag.histogram(), busy, took - seconds,
        )  # fmt: skip


class Pile:
    """Durations on their way into a histogram."""

    __slots__ = ("_folded", "_raw")

    def __init__(self) -> None:
        self._raw = array("d")
        self._folded = Histogram()

    def add(self, seconds: float) -> None:
        self._raw.append(seconds)
        if len(self._raw) >= _FOLD:
            self._fold()

    def histogram(self) -> Histogram:
        self._fold()
        return self._folded

    def _fold(self) -> None:
        self._folded = self._folded.merge(Histogram.of(self._raw))
        self._raw = array("d")
