"""What a validation is going to do: the rules it will run, and what it has found and said by then."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from modelyard.core.digest import JSON
from modelyard.data.contract import Column
from modelyard.data.findings import Finding

EXAMPLES = 3
"""How many offending values a finding shows."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule on one column: `broken` is the SQL condition that is true in rows that break it."""

    column: Column
    name: str
    broken: str
    allowed: float = 0.0
    promise: str = ""


@dataclass(slots=True)
class Plan:
    """What a validation is going to do; filled column by column."""

    rules: dict[str, list[Rule]] = field(default_factory=dict)
    columns: dict[str, Any] = field(default_factory=dict)
    bounds: dict[str, tuple[float, float] | None] = field(default_factory=dict)
    """What the extremes must lie between for a column to be cleared; `None`: cleared by its gaps alone."""
    checked: list[str] = field(default_factory=list)
    unchecked: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    def add(self, rule: Rule) -> None:
        """Plans a rule and says so."""
        self.rules.setdefault(rule.column.name, []).append(rule)
        self.checked.append(f"{rule.column.name}: {rule.promise}")


def shown(value: JSON | object, limit: int = 60) -> str:
    """A value as a finding shows it, cut at `limit` characters."""
    if isinstance(value, float | np.floating):
        text = f"{float(value):.9g}"
    else:
        text = value if isinstance(value, str) else str(value)
    return text if len(text) <= limit else text[: limit - 1] + "…"
