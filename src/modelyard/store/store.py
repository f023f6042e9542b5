"""The store as one thing: objects, records and the ledger, opened together."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from modelyard.core.clock import SYSTEM_CLOCK, Clock
from modelyard.store.ledger import Ledger
from modelyard.store.objects import ObjectStore
from modelyard.store.records import Records


@dataclass(frozen=True)
class Store:
    """Everything that outlives a command."""

    root: Path
    objects: ObjectStore
    records: Records
    ledger: Ledger

    def close(self) -> None:
        """Lets go of every connection; the store can be opened again."""


def open_store(
    root: Path, *, records: str | None = None, objects: str | None = None, clock: Clock = SYSTEM_CLOCK
) -> Store:
    """Opens, and where needed makes, the store of a project."""
    raise NotImplementedError
