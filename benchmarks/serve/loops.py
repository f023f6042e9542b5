"""Open loops against a server: the tail at a share of its capacity, and what is left of it in overload."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from serve import openloop
from serve.ask import Ask
from serve.server import LOAD_CORE, Server, quietest

from modelyard.serve.load.generator import LoadOptions, open_loop
from modelyard.serve.load.schedule import Arrivals
from modelyard.serve.load.target import Target

SHARE = 0.8
DISTURBED = 0.01
"""Share of the cores that the host took, from which on a tail is the host's."""
AT_CAPACITY = 64
"""Requests under way when the capacity is measured; more of them at a share of it are a backlog."""
LATE = 0.25
"""The generator's own lateness, as a share of the server's p50, above which a ratio is not the server's: each
request's latency includes it, so it may have raised p99 over p50 by that much, or lowered it by a like part.
"""
TIMEOUT_US, DEADLINE = 250_000, 0.5
"""What a client of the overload asks for, and within what its answer counts as good: the generator's own
queue and the way back lie between them."""


@contextlib.contextmanager
def on_core(core: str = LOAD_CORE) -> Iterator[None]:
    """This process on one core, without the garbage collector's pauses."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {int(core)})
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        os.sched_setaffinity(0, before)


def target(server: Server, ask: Ask) -> Target:
    """The request as the generator sends it."""
    return Target("127.0.0.1", server.port, (ask.request(server.form.path),))


@dataclass(frozen=True)
class Tail:
    """Latency of a server at one rate, over several runs."""

    rate: float
    runs: tuple[openloop.Loaded, ...]
    taken: tuple[float, ...] = ()
    """Of each run, the share of the cores that the host took meanwhile."""

    @property
    def p50(self) -> float:
        return statistics.median(run.latency["p50"] for run in self.runs)

    @property
    def p99(self) -> float:
        return statistics.median(run.latency["p99"] for run in self.runs)

    @property
    def ratio(self) -> float:
        """Median of the runs' p99 over p50."""
        return statistics.median(run.latency["p99"] / run.latency["p50"] for run in self.runs)

    @property
    def kept_up(self) -> bool:
        """Whether most runs went without failures and without a backlog: in an overload p50 is large too, and
        its ratio to p99 says nothing. By Little's law p50 times the rate is how many are under way."""
        fine = [run.failed == 0 and run.overtime <= 0.1 * run.seconds
                and run.latency["p50"] * self.rate <= AT_CAPACITY for run in self.runs]  # fmt: skip
        return 2 * sum(fine) > len(fine)

    @property
    def late(self) -> float:
        """The generator's own lateness, p99."""
        return statistics.median(run.lateness["p99"] for run in self.runs)

    @property
    def doubt(self) -> str:
        """Why the ratio is not the server's, when most runs say so; empty else."""
        disturbed = [share > DISTURBED for share in self.taken]
        if 2 * sum(disturbed) > len(disturbed):
            return f"the host took {statistics.median(self.taken):.1%} of the cores meanwhile ({self})"
        late = [run.lateness["p99"] > LATE * run.latency["p50"] for run in self.runs]
        if 2 * sum(late) <= len(late):
            return ""
        return f"the generator was {1e3 * self.late:.2f} ms late at p99, which is in the latency ({self})"

    def __str__(self) -> str:
        short = "" if self.kept_up else ", and does not keep up"
        return f"p50 {1e3 * self.p50:.2f}, p99 {1e3 * self.p99:.2f} ms at {self.rate:.0f}/s{short}"


def tails(
    servers: Sequence[Server], ask: Ask, capacity: float, *, seconds: float, rounds: int,
    kind: Arrivals = "poisson",
) -> dict[str, Tail]:  # fmt: skip
    """Each server's tail at 80 % of a capacity, the servers in turn within each round.

    All are asked at the same rate: what the constant answer shows there is the HTTP engine's and the
    generator's own. Raises `Failed` where the generator cannot be compiled or gets no answers.
    """
    runs: dict[str, list[tuple[openloop.Loaded, float]]] = {server.name: [] for server in servers}
    rate = SHARE * capacity
    for turn in range(rounds):
        for server in servers:
            one = partial(openloop.load, server.port, ask.request(server.form.path), rate, seconds=seconds,
                          kind=kind, seed=turn)  # fmt: skip
            runs[server.name].append(quietest(one))
    return {
        name: Tail(rate, tuple(run for run, _ in found), tuple(taken for _, taken in found))
        for name, found in runs.items()
    }


@dataclass(frozen=True)
class Overload:
    """What a server does at three times its capacity."""

    goodput: float
    """Good answers a second as a share of the capacity."""
    refused: int
    late: int
    """Answers with 200 that came after their deadline."""
    lost: int
    """Requests without any answer, or with another status than 200, 429, 503 and 504."""


def overload(server: Server, ask: Ask, capacity: float, seconds: float) -> Overload:
    """Three times the capacity in binary tensors, each request with a timeout."""
    length = int(ask.headers["Inference-Header-Content-Length"])
    head = json.loads(ask.body[:length])
    head["parameters"] = {**head["parameters"], "timeout": TIMEOUT_US}
    text = json.dumps(head, separators=(",", ":")).encode()
    headers = ask.headers | {"Inference-Header-Content-Length": str(len(text))}
    timed = Ask(ask.model, text + ask.body[length:], headers, ask.script, ask.right)
    options = LoadOptions(seconds=seconds, warmup=1.0, connections=1_000, deadline=DEADLINE)
    with on_core():
        found = open_loop(target(server, timed), options, 3 * capacity)
    refused = sum(count for status, count in found.statuses.items() if status in (429, 503, 504))
    fine = found.statuses.get(200, 0)
    lost = sum(found.errors.values()) + sum(found.statuses.values()) - fine - refused
    return Overload(found.goodput / capacity, refused, fine - found.good, lost)
