"""Hard limits that a model must keep whatever it gains: looked at before anything is trained or timed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from modelyard.compress.graph_file import operators, parse
from modelyard.core.unit import show_size
from modelyard.measure.requirement import Requirement

if TYPE_CHECKING:
    from modelyard.model.model import Model


@dataclass(frozen=True, slots=True)
class Limits:
    """The most bytes of the file, the most multiply-accumulates a row, the operators that the target has.

    `None` is no limit. The cheap ones are looked at first.
    """

    bytes: float | None = None
    macs: float | None = None
    operators: frozenset[str] | None = None

    def broken(self, model: Model) -> str:
        """Which limit a model breaks, with numbers; empty when it keeps them all."""
        if self.bytes is not None and model.size > self.bytes:
            return f"it has {show_size(model.size)}, the limit is {show_size(self.bytes)}"
        if self.operators is not None:
            foreign = sorted(set(operators(parse(model))) - self.operators)
            if foreign:
                return f"the target does not have {', '.join(foreign)}"
        if self.macs is not None:
            from modelyard.compress.inspect.facts import graph_facts

            found = graph_facts(model).macs
            if found > self.macs:
                return f"it multiplies {found:,} times a row, the limit is {self.macs:,.0f}"
        return ""


def hard_limits(
    requirements: Iterable[Requirement], *, macs: float | None = None, operators: frozenset[str] | None = None
) -> Limits:
    """The limits that requirements set on the file: the tightest `model_size`, and what else is given.

    >>> hard_limits([Requirement("model_size", bound, "at_most") for bound in (3e5, 2e5)]).bytes
    200000.0
    """
    sizes = [
        item.bound for item in requirements if item.metric == "model_size" and item.direction == "at_most"
    ]
    return Limits(min(sizes, default=None), macs, operators)
