"""One line of the ledger, and the law that chains it to the line before it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from modelyard.core.digest import JSON, Digest, digest_bytes

GENESIS: Digest = digest_bytes(b"modelyard ledger 1")
"""What the first entry names as its previous hash. The `1` is the version of the format: it is raised
when the fields of an entry or the law of its hash change, and readers keep every old law."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What was claimed about a subject, whether it passed, by whom and when."""

    index: int
    """1, 2, 3, ... without a gap."""
    time: str
    subject: str
    """A digest, or `endpoint:NAME`, or `project:NAME`."""
    claim: str
    passed: bool | None
    """`None` where a claim states a fact instead of a test's outcome."""
    body: dict[str, JSON]
    by: str
    previous: Digest
    hash: Digest

    def to_json(self) -> dict[str, Any]:
        raise NotImplementedError


def verify_export(lines: Iterable[str]) -> int:
    """Verifies an exported ledger; returns the number of entries. Raises `LedgerBroken` naming the index."""
    raise NotImplementedError
