"""Runs with their parameters and metrics, and JSON documents by kind and key."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from modelyard.core.clock import SYSTEM_CLOCK, Clock
from modelyard.core.digest import JSON

if TYPE_CHECKING:
    from modelyard.store.database import Database


@dataclass(frozen=True, slots=True)
class RunRow:
    """One run as it is listed: its parameters and, of every metric, the latest value."""

    run: str
    project: str
    kind: str
    status: str
    """`running` until `finish_run` says otherwise."""
    started: str
    ended: str | None
    params: dict[str, JSON]
    metrics: dict[str, float]


@dataclass(frozen=True, slots=True)
class MetricPoint:
    """One logged value of one metric."""

    step: int
    time: str
    value: float


class Records:
    """What is written down while work goes on, in SQLite or PostgreSQL."""

    def __init__(self, database: Database, clock: Clock = SYSTEM_CLOCK) -> None:
        self._database = database
        self._clock = clock

    @property
    def url(self) -> str:
        """The SQLAlchemy URL, password included: for other libraries, never for people."""
        raise NotImplementedError

    def start_run(self, project: str, kind: str, params: Mapping[str, JSON] | None = None) -> str:
        """Begins a run and returns its id."""
        raise NotImplementedError

    def log_metrics(self, run: str, metrics: Mapping[str, float], step: int = 0) -> None:
        """Writes down some metrics of a run at a step."""
        raise NotImplementedError

    def finish_run(self, run: str, status: str = "finished") -> None:
        """Ends a run."""
        raise NotImplementedError

    def runs(
        self, project: str | None = None, kind: str | None = None, limit: int | None = None
    ) -> list[RunRow]:
        """Runs, newest first, with their latest metrics."""
        raise NotImplementedError

    def run(self, run: str) -> RunRow:
        """One run; raises `StoreError` when there is none of that id."""
        raise NotImplementedError

    def history(self, run: str, metric: str) -> list[MetricPoint]:
        """Every value of one metric of one run, in the order in which they were logged."""
        raise NotImplementedError

    def put_document(self, kind: str, key: str, value: JSON) -> None:
        """Writes a document, replacing the one of that kind and key."""
        raise NotImplementedError

    def get_document(self, kind: str, key: str) -> JSON:
        """A document, or `None` when there is none."""
        raise NotImplementedError

    def documents(self, kind: str) -> list[tuple[str, JSON]]:
        """All documents of a kind with their keys, sorted by key."""
        raise NotImplementedError

    def delete_document(self, kind: str, key: str) -> None:
        """Deletes a document; nothing happens when there is none."""
        raise NotImplementedError
