"""A whole benchmark of one server: what to send, closed and open loops, and the ceiling beside them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from modelyard.core.progress import Progress, part, quiet
from modelyard.serve.conform.client import Client
from modelyard.serve.load.ceiling import ceiling
from modelyard.serve.load.generator import LoadOptions, closed_loop, open_loop
from modelyard.serve.load.result import LoadResult
from modelyard.serve.load.schedule import Arrivals
from modelyard.serve.load.sweep import Sweep, rates_of, sweep
from modelyard.serve.load.target import Target, file_requests, model_requests, probe, target_of

FORMAT = 1
"""Version of the report's JSON."""

_OPEN_CONNECTIONS = 512


@dataclass(frozen=True, slots=True)
class Plan:
    """What to measure. Without `rate` and `sweep`, a closed loop with the options' connections.

    `body` is the JSON of requests (see `file_requests`); made up from the model's metadata when `None`.
    """

    url: str
    endpoint: str | None = None
    rate: float | None = None
    sweep: bool = False
    arrivals: Arrivals = "poisson"
    items: int = 1
    binary: bool = False
    body: Any = None
    path: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    ceiling: bool = True


@dataclass(frozen=True, slots=True)
class Side:
    """What was measured of the server, or of the constant answer."""

    closed: LoadResult | None = None
    open: LoadResult | None = None
    sweep: Sweep | None = None

    def results(self) -> Iterator[tuple[str, LoadResult]]:
        """Every run with its label."""
        if self.closed:
            yield f"closed, {self.closed.connections} connections", self.closed
        if self.open:
            yield "open", self.open
        for point in self.sweep.points if self.sweep else ():
            yield "open", point

    def to_json(self) -> dict[str, Any]:
        parts = {"closed": self.closed, "open": self.open, "sweep": self.sweep}
        return {name: None if item is None else item.to_json() for name, item in parts.items()}


@dataclass(frozen=True, slots=True)
class Bench:
    """The benchmark's result."""

    url: str
    path: str
    body: int
    answer: int
    server: Side
    ceiling: Side | None

    @property
    def answered(self) -> bool:
        """Whether anything was answered well."""
        return any(result.good for _, result in self.server.results())

    @property
    def share(self) -> float | None:
        """The closed loop's throughput over the ceiling's; `None` where one of them was not measured."""
        both = self.server.closed, self.ceiling.closed if self.ceiling else None
        if both[0] is None or both[1] is None or not both[1].goodput:
            return None
        return both[0].goodput / both[1].goodput

    def to_json(self) -> dict[str, Any]:
        return {
            "format": FORMAT, "url": self.url, "path": self.path, "body": self.body, "answer": self.answer,
            "share": self.share, "server": self.server.to_json(),
            "ceiling": None if self.ceiling is None else self.ceiling.to_json(),
        }  # fmt: skip


def run(plan: Plan, options: LoadOptions, *, progress: Progress = quiet) -> Bench:
    """Measures a server as planned, then the ceiling with the same requests.

    Raises `ServeError` when the server does not answer a first request well, `RequestError` when the given
    bodies are wrong.
    """
    client = Client(plan.url, headers=plan.headers)
    if plan.body is None:
        requests = model_requests(client, plan.endpoint, items=plan.items, binary=plan.binary)
        if plan.path is not None:
            requests = [replace(request, path=plan.path) for request in requests]
    else:
        requests = file_requests(plan.body, plan.endpoint, plan.path)
    first = probe(client, requests)
    target = target_of(plan.url, requests, headers=plan.headers)
    target = replace(target, answer=0 if first.response is None else len(first.response.body))
    server = _side(target, plan, options, None, part(progress, 0.0, 0.5 if plan.ceiling else 1.0))
    beside = None
    if plan.ceiling:
        rates = None if server.sweep is None else [point.rate for point in server.sweep.points]
        with ceiling(target) as constant:
            beside = _side(constant, plan, options, rates, part(progress, 0.5, 1.0))
    return Bench(plan.url, target.path, target.body, target.answer, server, beside)


def _side(
    target: Target, plan: Plan, options: LoadOptions, rates: list[float] | None, progress: Progress
) -> Side:
    """`rates` are those of the sweep; found from the capacity when `None`."""
    # An open loop stands for independent users: it must not be throttled by a small number of connections.
    wide = replace(options, connections=max(options.connections, _OPEN_CONNECTIONS))

    def at(rate: float, tell: Progress) -> LoadResult:
        return open_loop(target, wide, rate, kind=plan.arrivals, progress=tell)

    if plan.rate is not None and not plan.sweep:
        return Side(open=at(plan.rate, progress))
    share = 0.1 if plan.sweep else 1.0
    closed = closed_loop(target, options, progress=part(progress, 0.0, share))
    if not plan.sweep:
        return Side(closed=closed)
    if not closed.goodput:
        return Side(closed=closed, sweep=Sweep(0.0, ()))
    chosen = rates if rates is not None else rates_of(closed.goodput)
    return Side(closed=closed, sweep=sweep(at, closed.goodput, chosen, progress=part(progress, share, 1.0)))
