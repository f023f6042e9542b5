"""Judging one window of the prediction log against the release's own reference."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from modelyard.measure.requirement import Requirement
from modelyard.monitor.options import MonitorOptions
from modelyard.monitor.window_report import WindowReport

if TYPE_CHECKING:
    import pyarrow as pa

    from modelyard.data.contract import Contract
    from modelyard.data.profile import Profile

_DEFAULTS = MonitorOptions()


def judge_window(  # noqa: PLR0917 - what is judged, against what, in this order everywhere
    table: pa.Table,
    feedback: pa.Table | None,
    reference: Profile,
    contract: Contract,
    requirements: Sequence[Requirement],
    options: MonitorOptions = _DEFAULTS,
    *,
    endpoint: str = "",
    released: float | None = None,
    now: float | None = None,
    look: int = 1,
    log: pa.Table | None = None,
) -> WindowReport:
    """Holds a window of live traffic against the release's profile, contract and requirements.

    `table` is a window of the prediction log (`serve.record`) of one release and `feedback` the labels that
    came meanwhile, which are joined by id to `log` (to `table` where it is omitted). `released` and `now`
    (seconds since 1970) give the release's age. `look` counts the windows judged so far, from 1: look `k`
    spends `false_alarms / (k (k + 1))`, so that all looks together never spend more than the budget. Pure.
    """
    raise NotImplementedError
