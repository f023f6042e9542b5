"""The two nouns that every step ends in: what was measured, and what follows from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from modelyard.core.digest import finite


@dataclass(frozen=True, slots=True)
class Measurement:
    """A value with its interval and unit.

    `low` and `high` bound the true value with probability `confidence` (both `None` where no interval
    exists, as for a file's size). `n` is how many independent observations stand behind it and `method`
    names how the interval was made (`clopper-pearson`, `bootstrap-bca`, `exact`, ...).
    """

    metric: str
    value: float
    low: float | None = None
    high: float | None = None
    unit: str = ""
    n: int = 0
    confidence: float = 0.95
    method: str = "exact"
    of: str = ""
    """What it was measured on: a split, a slice, an endpoint; empty when there is only one."""

    def to_json(self) -> dict[str, Any]:
        return {
            "metric": self.metric,
            "value": finite(self.value),
            "low": finite(self.low),
            "high": finite(self.high),
            "unit": self.unit,
            "n": self.n,
            "confidence": self.confidence,
            "method": self.method,
            "of": self.of,
        }

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> Measurement:
        return Measurement(
            metric=str(value["metric"]),
            value=float(value["value"]),
            low=None if value["low"] is None else float(value["low"]),
            high=None if value["high"] is None else float(value["high"]),
            unit=str(value["unit"]),
            n=int(value["n"]),
            confidence=float(value["confidence"]),
            method=str(value["method"]),
            of=str(value["of"]),
        )


@dataclass(frozen=True, slots=True)
class Verdict:
    """A claim that was put to the test: passed or failed, and why, with the measurements behind it.

    `claim` is a short machine-readable name (`requirement.accuracy`, `data.1`), `why` one sentence for
    people, `details` whatever JSON a reader may want to look into.
    """

    claim: str
    passed: bool
    why: str
    measurements: tuple[Measurement, ...] = ()
    bound: float | None = None
    details: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {
            "claim": self.claim,
            "passed": self.passed,
            "why": self.why,
            "measurements": [item.to_json() for item in self.measurements],
            "bound": self.bound,
            "details": finite(dict(self.details)),
        }

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> Verdict:
        return Verdict(
            claim=str(value["claim"]),
            passed=bool(value["passed"]),
            why=str(value["why"]),
            measurements=tuple(Measurement.from_json(item) for item in value["measurements"]),
            bound=None if value["bound"] is None else float(value["bound"]),
            details=dict(value["details"]),
        )
