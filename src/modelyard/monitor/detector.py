"""The extension point: what compares one column of a window with the same column of the reference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from modelyard.data.profile import ColumnProfile
from modelyard.monitor.options import MonitorOptions


@dataclass(frozen=True, slots=True)
class Shift:
    """How far one column moved.

    `effect` lies in 0 to 1 and does not grow with the rows; `relevant` says that it reaches its floor;
    `p_value` is valid under "nothing moved". `text` names what moved with its numbers, without the column's
    name (`mean moved from 0.13 to 0.61 (KS 0.82)`).
    """

    effect: float
    p_value: float
    relevant: bool
    text: str
    rows: int
    details: Mapping[str, float] = field(default_factory=dict)


@runtime_checkable
class Detector(Protocol):
    """Compares two profiles of one column. Implementations are pure, deterministic and keep no state.

    `compare` is called once a column and window with profiles of one contract. It returns `None` for a kind
    of column that the detector does not judge and where either side has no value to compare. Under "both
    were drawn from one distribution" the p-value must be at most `a` with a probability of at most `a`
    (or little more), in the far tail too: a watch spends its budget in very small shares.
    """

    @property
    def name(self) -> str:
        """The name in `DETECTORS`, part of the claim."""
        ...

    def compare(
        self, reference: ColumnProfile, window: ColumnProfile, options: MonitorOptions
    ) -> Shift | None:
        """How far the window lies from the reference."""
        ...
