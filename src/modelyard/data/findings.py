"""What a check of data found, and what it did not look at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from modelyard.measure.measurement import Verdict


@dataclass(frozen=True, slots=True)
class Finding:
    """One rule that some rows of one column break.

    `rows` is the exact number of rows that break it (0 for what concerns the whole column, such as a
    column that is absent), `examples` up to three offending values as text. `column` is empty when the
    rule is about the whole table.
    """

    column: str
    rule: str
    rows: int
    examples: tuple[str, ...]
    message: str

    def to_json(self) -> dict[str, Any]:
        return {
            "column": self.column,
            "rule": self.rule,
            "rows": self.rows,
            "examples": list(self.examples),
            "message": self.message,
        }

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> Finding:
        return Finding(
            column=str(value["column"]),
            rule=str(value["rule"]),
            rows=int(value["rows"]),
            examples=tuple(str(item) for item in value["examples"]),
            message=str(value["message"]),
        )


@dataclass(frozen=True, slots=True)
class Findings:
    """The outcome of a check over `rows` rows: `checked` and `unchecked` say in words what was looked at."""

    rows: int
    checked: tuple[str, ...]
    unchecked: tuple[str, ...]
    findings: tuple[Finding, ...]

    @property
    def holds(self) -> bool:
        """Whether nothing was found."""
        return not self.findings

    def to_verdict(self, claim: str = "data.contract") -> Verdict:
        """The outcome as a verdict; its details carry every finding and what was not checked."""
        if self.holds:
            why = f"{self.rows:,} rows keep the contract in {len(self.checked)} checks"
        else:
            first = self.findings[0].message
            more = len(self.findings) - 1
            why = first + (f" (and {more} more finding{'s' if more > 1 else ''})" if more else "")
        return Verdict(
            claim,
            self.holds,
            why,
            details={
                "rows": self.rows,
                "checked": list(self.checked),
                "unchecked": list(self.unchecked),
                "findings": [finding.to_json() for finding in self.findings],
            },
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "rows": self.rows,
            "checked": list(self.checked),
            "unchecked": list(self.unchecked),
            "findings": [finding.to_json() for finding in self.findings],
        }

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> Findings:
        return Findings(
            rows=int(value["rows"]),
            checked=tuple(str(item) for item in value["checked"]),
            unchecked=tuple(str(item) for item in value["unchecked"]),
            findings=tuple(Finding.from_json(item) for item in value["findings"]),
        )
