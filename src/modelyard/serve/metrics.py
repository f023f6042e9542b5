"""Counters and histograms of the serving process, and their Prometheus text (exposition format 0.0.4).

A sample is one bisection and three additions on plain lists: cheap enough for every request. All samples
are taken on the event loop's thread or under the interpreter's lock, so none is lost between two of them.
"""

from __future__ import annotations

import math
import operator
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Generic, TypeAlias, TypeVar

import numpy as np

LATENCY_BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0,
                   2.5, 5.0, 10.0)  # fmt: skip
BATCH_BUCKETS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0)

Samples: TypeAlias = Mapping[str, Sequence[tuple[tuple[str, ...], Sequence[float]]]]
"""What was counted, as plain values: by family, the label values and the numbers of each sample."""


class Counter:
    """A number that only grows, for one set of labels."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0.0

    def add(self, amount: float = 1.0) -> None:
        """Adds an amount, which must not be negative."""
        self.value += amount

    def numbers(self) -> list[float]:
        return [self.value]

    def join(self, numbers: Sequence[float], *, first: bool) -> None:
        """Adds what another process counted."""
        self.value += numbers[0]

    def lines(self, name: str, labels: str) -> Iterable[str]:
        yield f"{name}{labels} {_number(self.value)}"


class Gauge:
    """A number that goes up and down. `over` makes one of two processes' numbers: `min`, `max`, a sum."""

    __slots__ = ("over", "value")

    def __init__(self, over: Callable[[float, float], float] = operator.add) -> None:
        self.value = 0.0
        self.over = over

    def set(self, value: float) -> None:
        """Sets the value."""
        self.value = value

    def numbers(self) -> list[float]:
        return [self.value]

    def join(self, numbers: Sequence[float], *, first: bool) -> None:
        """Takes another process's number over, or makes one of both."""
        self.value = numbers[0] if first else self.over(self.value, numbers[0])

    def lines(self, name: str, labels: str) -> Iterable[str]:
        yield f"{name}{labels} {_number(self.value)}"


class Histogram:
    """How often a value fell into which bucket, with sum and count; the buckets are upper bounds.

    >>> seconds = Histogram((0.1, 1.0))
    >>> for value in (0.05, 0.1, 0.5, 3.0): seconds.observe(value)
    >>> print("\\n".join(seconds.lines("s", "")))
    s_bucket{le="0.1"} 2
    s_bucket{le="1"} 3
    s_bucket{le="+Inf"} 4
    s_sum 3.65
    s_count 4
    """

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...] = LATENCY_BUCKETS) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Counts one value; a bucket holds what is at most its bound."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def observe_all(self, values: np.ndarray[Any, np.dtype[np.float64]]) -> None:
        """Counts several values."""
        found = np.bincount(np.searchsorted(self.bounds, values), minlength=len(self.counts))
        for place, number in enumerate(found.tolist()):
            self.counts[place] += number
        self.total += float(values.sum())

    @property
    def count(self) -> int:
        """How many values were observed."""
        return sum(self.counts)

    def numbers(self) -> list[float]:
        return [*self.counts, self.total]

    def join(self, numbers: Sequence[float], *, first: bool) -> None:
        """Adds what another process observed; other buckets than these say nothing here."""
        if len(numbers) == len(self.counts) + 1:
            self.counts = [mine + int(theirs) for mine, theirs in zip(self.counts, numbers, strict=False)]
            self.total += numbers[-1]

    def lines(self, name: str, labels: str) -> Iterable[str]:
        counts = list(self.counts)
        head = labels[:-1] + "," if labels else "{"
        seen = 0
        for bound, count in zip((*self.bounds, math.inf), counts, strict=True):
            seen += count
            yield f'{name}_bucket{head}le="{_number(bound)}"}} {seen}'
        yield f"{name}_sum{labels} {_number(self.total)}"
        yield f"{name}_count{labels} {seen}"


S = TypeVar("S", Counter, Gauge, Histogram)


class Family(Generic[S]):
    """All samples of one name: one per set of labels, made when first asked for."""

    __slots__ = ("_children", "_make", "help", "kind", "labels", "name")

    def __init__(self, name: str, help: str, labels: tuple[str, ...], make: Callable[[], S]) -> None:
        self.name = name
        self.help = help
        self.labels = labels
        self.kind = type(make()).__name__.lower()
        self._make: Callable[[], S] = make
        self._children: dict[tuple[str, ...], S] = {}

    def at(self, *values: str) -> S:
        """The sample for these label values, in the order of the names."""
        child = self._children.get(values)
        if child is None:
            if len(values) != len(self.labels):
                raise ValueError(f"{self.name} has the labels {self.labels}, got {values}")
            child = self._children[values] = self._make()
        return child

    def forget(self, *values: str) -> None:
        """Drops the sample for these label values, of something that is served no more."""
        self._children.pop(values, None)

    def samples(self) -> list[tuple[tuple[str, ...], list[float]]]:
        """The numbers of every sample."""
        return [(values, child.numbers()) for values, child in list(self._children.items())]

    def join(self, values: tuple[str, ...], numbers: Sequence[float]) -> None:
        """Adds another process's sample to the one with these label values."""
        first = values not in self._children
        self.at(*values).join(numbers, first=first)

    def text(self) -> Iterable[str]:
        """The family's lines in the exposition format."""
        yield f"# HELP {self.name} {self.help}"
        yield f"# TYPE {self.name} {self.kind}"
        for values, child in list(self._children.items()):
            pairs = ",".join(
                f'{key}="{_escape(value)}"' for key, value in zip(self.labels, values, strict=True)
            )
            yield from child.lines(self.name, "{" + pairs + "}" if pairs else "")


class Metrics:
    """What one serving process counts; the fields are the families, `text` is what a scraper reads.

    `samples` and `join` bring the counts of several processes together.
    """

    def __init__(self) -> None:
        by_release = ("endpoint", "release", "version", "arm", "outcome")
        self._families: list[Family[Any]] = []
        self._before: list[Callable[[], None]] = []
        self.requests = self._counter(
            "modelyard_requests_total", "Requests to an endpoint by what became of them.", by_release
        )
        self.items = self._counter("modelyard_items_total", "Items answered.", by_release)
        self.seconds = self._histogram(
            "modelyard_request_seconds",
            "From the complete request to its answer.",
            by_release,
            LATENCY_BUCKETS,
        )
        self.run_seconds = self._histogram(
            "modelyard_batch_seconds", "One call of the runtime.", ("endpoint", "release"), LATENCY_BUCKETS
        )
        self.batch_items = self._histogram(
            "modelyard_batch_items",
            "Items in one call of the runtime.",
            ("endpoint", "release"),
            BATCH_BUCKETS,
        )
        self.waits = self._histogram(
            "modelyard_queue_seconds",
            "From the complete request to the run that answers it.",
            ("endpoint", "release"),
            LATENCY_BUCKETS,
        )
        self.released = self._counter(
            "modelyard_batches_total", "Calls of the runtime by why they held no more items.",
            ("endpoint", "release", "why"),
        )  # fmt: skip
        self.http = self._counter("modelyard_http_responses_total", "Responses by status.", ("status",))
        self.grpc = self._counter(
            "modelyard_grpc_responses_total", "Calls over gRPC by their status.", ("method", "code")
        )
        self.breaches = self._counter(
            "modelyard_contract_breaches_total",
            "Items that broke the contract.",
            ("endpoint", "column", "rule"),
        )
        self.broken = self._counter(
            "modelyard_isolation_breaks_total",
            "Batches that did not answer like their items alone; the model is not batched any more.",
            ("endpoint", "release"),
        )
        self.shed = self._counter("modelyard_shed_total", "Requests refused or dropped for lack of room.",
                                  ("endpoint", "why"))  # fmt: skip
        self.logged = self._counter(
            "modelyard_log_rows_total", "Rows written to the prediction log.", ("endpoint",)
        )
        self.dropped = self._counter(
            "modelyard_log_dropped_rows_total", "Rows that the prediction log had no room for.", ("endpoint",)
        )
        self.left_out = self._counter(
            "modelyard_log_inputs_left_out_rows_total",
            "Rows logged without their inputs, to keep within the log's bytes a second.",
            ("endpoint",),
        )
        self.feedback = self._counter(
            "modelyard_feedback_total",
            "Feedback by whether its id was seen here lately.",
            ("endpoint", "known"),
        )
        self.generation = self._gauge(
            "modelyard_endpoint_generation",
            "Ledger index of the policy that is served (by all workers).",
            ("endpoint",),
            min,
        )
        self.swaps = self._counter("modelyard_swaps_total", "Policies taken over.", ("endpoint",))
        self.refused = self._counter(
            "modelyard_refused_total", "Policies not taken over because a release failed.", ("endpoint",)
        )
        self.store_up = self._gauge(
            "modelyard_store_up", "1 when the store answered the last time it was asked.", (), min
        )
        self.loads = self._counter(
            "modelyard_loads_total",
            "Endpoints brought into memory, by who asked: start, policy, request, operator.",
            ("why",),
        )
        self.load_seconds = self._histogram(
            "modelyard_load_seconds", "Reading, proving and warming an endpoint.", (), LATENCY_BUCKETS
        )
        self.evictions = self._counter(
            "modelyard_evictions_total",
            "Endpoints taken out of memory: for other models' memory, or unloaded by an operator.",
            ("why",),
        )
        self.resident = self._gauge("modelyard_resident_endpoints", "Endpoints in memory.", ())
        self.resident_bytes = self._gauge(
            "modelyard_resident_bytes", "What the models in memory hold, shared ones once.", ()
        )
        self.waiting = self._gauge(
            "modelyard_waiting_items", "Items that wait for the runtime.", ("release",)
        )

    def before(self, settle: Callable[[], None]) -> None:
        """Has this called before the metrics are read, so that what was put off is counted."""
        self._before.append(settle)

    def settle(self) -> None:
        """Counts what was put off."""
        for settle in self._before:
            settle()

    def samples(self) -> Samples:
        """Everything that was counted, as plain values."""
        self.settle()
        return {family.name: family.samples() for family in self._families}

    def join(self, samples: Samples, *, gauges: bool = True) -> None:
        """Adds what another process counted; without `gauges` only what grows, of one that has ended."""
        for family in self._families:
            if gauges or family.kind != "gauge":
                for values, numbers in samples.get(family.name, ()):
                    family.join(tuple(values), numbers)

    def text(self) -> bytes:
        """Everything in the exposition format."""
        self.settle()
        lines = [line for family in self._families for line in family.text()]
        return ("\n".join(lines) + "\n").encode()

    def _counter(self, name: str, help: str, labels: tuple[str, ...]) -> Family[Counter]:
        return self._add(Family(name, help, labels, Counter))

    def _gauge(
        self,
        name: str,
        help: str,
        labels: tuple[str, ...],
        over: Callable[[float, float], float] = operator.add,
    ) -> Family[Gauge]:
        return self._add(Family(name, help, labels, lambda: Gauge(over)))

    def _histogram(
        self, name: str, help: str, labels: tuple[str, ...], bounds: tuple[float, ...]
    ) -> Family[Histogram]:
        return self._add(Family(name, help, labels, lambda: Histogram(bounds)))

    def _add(self, family: Family[S]) -> Family[S]:
        self._families.append(family)
        return family


def _number(value: float) -> str:
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return str(int(value)) if value == int(value) and abs(value) < 1e15 else repr(value)


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
