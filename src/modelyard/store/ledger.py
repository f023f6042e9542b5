"""The append-only, hash-chained ledger: what every gate, canary, alarm and score reads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from modelyard.core.clock import SYSTEM_CLOCK, Clock
from modelyard.measure.measurement import Verdict
from modelyard.store.entry import Entry, verify_export

if TYPE_CHECKING:
    from modelyard.store.database import Database

__all__ = ["Entry", "Ledger", "verify_export"]


class Ledger:
    """Entries in the records' database."""

    def __init__(self, database: Database, clock: Clock = SYSTEM_CLOCK) -> None:
        self._database = database
        self._clock = clock

    def append(
        self,
        subject: str,
        claim: str,
        *,
        passed: bool | None = None,
        body: Mapping[str, Any] | None = None,
        by: str,
    ) -> Entry:
        """Adds one entry; durable when this returns."""
        raise NotImplementedError

    def append_verdict(self, subject: str, verdict: Verdict, *, by: str) -> Entry:
        """Adds a verdict: its claim, whether it passed, and all of it as the body."""
        return self.append(subject, verdict.claim, passed=verdict.passed, body=verdict.to_json(), by=by)

    def entries(
        self,
        *,
        subject: str | None = None,
        claim: str | None = None,
        prefix: str | None = None,
        after: int = 0,
        limit: int | None = None,
        newest_first: bool = False,
    ) -> list[Entry]:
        """Entries that match every given condition, in order."""
        raise NotImplementedError

    def head(self) -> Entry | None:
        """The newest entry."""
        raise NotImplementedError

    def verify(self) -> int:
        """Checks the whole chain; returns the number of entries, raises `LedgerBroken` naming the index."""
        raise NotImplementedError

    def export(self) -> Iterator[str]:
        """Every entry as one JSON line (without the newline)."""
        raise NotImplementedError
