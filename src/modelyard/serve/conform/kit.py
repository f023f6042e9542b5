"""Runs every case against a server and says what holds."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from modelyard.core.progress import Progress, quiet
from modelyard.serve.conform.answering import ANSWERING
from modelyard.serve.conform.binary import BINARY
from modelyard.serve.conform.case import Case, Outcome
from modelyard.serve.conform.client import Client
from modelyard.serve.conform.crowd import CROWD
from modelyard.serve.conform.describing import DESCRIBING
from modelyard.serve.conform.exchange import curl
from modelyard.serve.conform.grpc import GRPC
from modelyard.serve.conform.model import ModelInfo, describe, discover
from modelyard.serve.conform.refusing import REFUSING
from modelyard.serve.conform.repository import REPOSITORY
from modelyard.serve.conform.tensor import Sample

FORMAT = 1
"""Version of the report's JSON; raise it when an older reader would misread a field."""

CASES: tuple[Case, ...] = (*DESCRIBING, *ANSWERING, *REFUSING, *BINARY, *REPOSITORY, *GRPC, *CROWD)


@dataclass(frozen=True, slots=True)
class Line:
    """One case against one model."""

    model: str
    case: Case
    outcome: Outcome
    seconds: float

    def to_json(self, url: str) -> dict[str, Any]:
        shown = self.outcome.shown
        return {
            "model": self.model, "id": self.case.id, "title": self.case.title, "section": self.case.section,
            "level": self.case.level, "result": self.outcome.result, "why": self.outcome.why,
            "seconds": round(self.seconds, 4), "shown": None if shown is None else shown.to_json(url),
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Report:
    """What holds of a server. `complete` is false when the time ran out before the last case."""

    url: str
    lines: tuple[Line, ...]
    complete: bool

    @property
    def conforms(self) -> bool:
        """Whether every required case was reached, and none of them fails."""
        return self.complete and not any(
            line.case.level == "required" and line.outcome.result == "fails" for line in self.lines
        )

    def count(self, result: str) -> int:
        return sum(line.outcome.result == result for line in self.lines)

    def failures(self) -> tuple[Line, ...]:
        return tuple(line for line in self.lines if line.outcome.result == "fails")

    def request(self, line: Line) -> str:
        """The shell line that shows a failure; empty where nothing was sent over HTTP."""
        return "" if line.outcome.shown is None else curl(self.url, line.outcome.shown.request)

    def to_json(self) -> dict[str, Any]:
        results = ("holds", "fails", "not applicable")
        return {
            "format": FORMAT,
            "url": self.url,
            "conforms": self.conforms,
            "complete": self.complete,
            "counts": {result: self.count(result) for result in results},
            "cases": [line.to_json(self.url) for line in self.lines],
        }


def conform(
    client: Client,
    *,
    models: Sequence[str] = (),
    sample: Sample | None = None,
    cases: Sequence[Case] = CASES,
    budget: float = 300.0,
    progress: Progress = quiet,
) -> Report:
    """Runs the cases against each model (those named, or those that the server lists).

    `budget` bounds the whole in seconds: no case begins after it. Raises `ServeError` when the server does
    not answer at all or lists no model.
    """
    started = time.perf_counter()
    found: list[ModelInfo] = [describe(client, name, sample) for name in discover(client, tuple(models))]
    lines: list[Line] = []
    total = len(found) * len(cases)
    for model in found:
        for case in cases:
            begun = time.perf_counter()
            if begun - started > budget:
                return Report(client.url, tuple(lines), complete=False)
            progress(len(lines) / total, f"{model.name}: {case.id}")
            outcome = case.run(client, model)
            lines.append(Line(model.name, case, outcome, time.perf_counter() - begun))
    progress(1.0, "done")
    return Report(client.url, tuple(lines), complete=True)
