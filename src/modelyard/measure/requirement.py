"""One line of "good enough", and how a measurement is held against it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from modelyard.measure.measurement import Measurement, Verdict


@dataclass(frozen=True, slots=True)
class Requirement:
    """A metric must be at least, or at most, a bound.

    The bound is in the metric's own unit (seconds, bytes, items per second, or a plain number). With
    `strict` the whole interval must lie on the right side; otherwise the measured value must.
    `where` says what it is measured on (`test` for the held-out split, `service` for the running
    server) and `slice` the named part of it (empty for all).
    """

    metric: str
    bound: float
    direction: Literal["at_least", "at_most"]
    where: str = "test"
    slice: str = ""
    strict: bool = False

    @property
    def claim(self) -> str:
        """The name of the verdict on this requirement."""
        part = f"[{self.slice}]" if self.slice else ""
        return f"requirement.{self.metric}{part}"

    def judge(self, measured: Measurement) -> Verdict:
        """Holds a measurement against the bound. A value that is not a number fails.

        >>> Requirement("accuracy", 0.9, "at_least").judge(Measurement("accuracy", 0.95)).passed
        True
        """
        at_least = self.direction == "at_least"
        held = measured.value
        if self.strict:
            edge = measured.low if at_least else measured.high
            held = measured.value if edge is None else edge
        passed = held >= self.bound if at_least else held <= self.bound
        sign = "at least" if at_least else "at most"
        what = "the interval's edge" if self.strict else "the measured value"
        why = f"{what} {held:.6g} {'is' if passed else 'is not'} {sign} {self.bound:.6g}"
        return Verdict(self.claim, passed, why, (measured,), self.bound)

    def to_json(self) -> dict[str, Any]:
        return {
            "metric": self.metric,
            "bound": self.bound,
            "direction": self.direction,
            "where": self.where,
            "slice": self.slice,
            "strict": self.strict,
        }

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> Requirement:
        return Requirement(
            metric=str(value["metric"]),
            bound=float(value["bound"]),
            direction="at_least" if value["direction"] == "at_least" else "at_most",
            where=str(value["where"]),
            slice=str(value["slice"]),
            strict=bool(value["strict"]),
        )
