"""Growing logs in, successive judged windows out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from modelyard.core.clock import SYSTEM_CLOCK, Clock
from modelyard.measure.requirement import Requirement
from modelyard.monitor.options import MonitorOptions
from modelyard.monitor.window_report import WindowReport

if TYPE_CHECKING:
    import pyarrow as pa

    from modelyard.data.contract import Contract
    from modelyard.data.profile import Profile

WATCH_VERSION = 1
"""Of the stored `WatchState`; raise it when a field changes its meaning, and keep reading the old ones."""

_DEFAULTS = MonitorOptions()


@dataclass(frozen=True, slots=True)
class WatchState:
    """Where a watch stands, so that another process can go on.

    `since` is the time (seconds since 1970) from which rows are still open, `feedback` that from which
    feedback is, `looks` how many windows have spent from the budget, `opened` when the open window began.
    """

    since: float = 0.0
    feedback: float = 0.0
    looks: int = 0
    opened: float | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            "version": WATCH_VERSION,
            "since": self.since,
            "feedback": self.feedback,
            "looks": self.looks,
            "opened": self.opened,
        }

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> WatchState:
        if value.get("version") != WATCH_VERSION:
            raise ValueError(f"a watch state of version {value.get('version')!r} cannot be read")
        opened = value["opened"]
        return WatchState(
            float(value["since"]),
            float(value["feedback"]),
            int(value["looks"]),
            None if opened is None else float(opened),
        )


class Watcher:
    """A machine that is fed the log as it grows and yields a report for each window that closes.

    It reads no file and starts no thread: whoever owns the log calls `feed` whenever there may be news, with
    at least the rows since `state.since` (more does no harm).
    """

    def __init__(
        self,
        reference: Profile,
        contract: Contract,
        requirements: Sequence[Requirement],
        options: MonitorOptions = _DEFAULTS,
        *,
        endpoint: str = "",
        released: float | None = None,
        clock: Clock = SYSTEM_CLOCK,
        state: WatchState = WatchState(),
    ) -> None:
        self._reference = reference
        self._contract = contract
        self._requirements = tuple(requirements)
        self._options = options
        self._endpoint = endpoint
        self._released = released
        self._clock = clock
        self.state = state

    def feed(self, table: pa.Table, feedback: pa.Table | None = None) -> list[WindowReport]:
        """The reports of the windows that closed by now, oldest first; `state` moves on with them."""
        raise NotImplementedError
