"""The ML Test Score of a release: a pure function of the ledger's entries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from modelyard.store.ledger import Entry


@dataclass(frozen=True, slots=True)
class Lineage:
    """The subjects whose evidence speaks for a release: itself, its data, code, model and endpoint."""

    subjects: frozenset[str]

    def __contains__(self, subject: object) -> bool:
        return subject in self.subjects


@dataclass(frozen=True, slots=True)
class Line:
    """One test's line: its points, and the entry they come from or what is missing and the command for it.

    `entry` is the index in the ledger of the evidence that decided, `why` a sentence about it; `missing` is
    empty for a full point.
    """

    test: str
    section: str
    title: str
    points: float
    entry: int | None
    why: str
    missing: str
    command: str

    def to_json(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class Score:
    """The score: the sum of each section, their minimum as the total, what it means, and all 28 lines."""

    sections: tuple[tuple[str, float], ...]
    total: float
    band: str
    lines: tuple[Line, ...]

    def line(self, test: str) -> Line:
        """The line of a test; `KeyError` when there is none."""
        for line in self.lines:
            if line.test == test:
                return line
        raise KeyError(test)

    def to_json(self) -> dict[str, Any]:
        return {
            "total": self.total,
            "band": self.band,
            "sections": dict(self.sections),
            "lines": [line.to_json() for line in self.lines],
        }


def score(entries: Sequence[Entry], subjects: Lineage, now: float) -> Score:
    """The ML Test Score at a time (`now`, seconds since 1970) from the entries of a ledger."""
    raise NotImplementedError
