"""The 28 tests of the ML Test Score, what counts as their evidence here, and the command that makes it.

Source: Breck, Cai, Nielsen, Salib, Sculley, "The ML Test Score: A Rubric for ML Production Readiness and
Technical Debt Reduction", IEEE Big Data 2017.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

Section: TypeAlias = Literal["data", "model", "infra", "monitoring"]


@dataclass(frozen=True, slots=True)
class ScoreTest:
    """One of the 28: its title in the paper, the evidence it needs, the command, its days of life."""

    id: str
    title: str
    evidence: str
    command: str
    expires_days: float

    @property
    def section(self) -> str:
        """The part of the id before the dot."""
        return self.id.partition(".")[0]

    @property
    def drilled(self) -> bool:
        """Whether only a drill counts as evidence."""
        return self.section == "monitoring"

    @property
    def claim(self) -> str:
        """The claim of the ledger entry that counts: the id, or `drill.<id>` for a monitoring test."""
        return f"drill.{self.id}" if self.drilled else self.id


TESTS: tuple[ScoreTest, ...] = ()
