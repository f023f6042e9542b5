"""Judging one window of the prediction log against the release's own reference."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from modelyard.measure.requirement import Requirement
from modelyard.monitor.actions import Actions
from modelyard.monitor.breaches import breach_rate, missing_rates
from modelyard.monitor.budget import share
from modelyard.monitor.drift import drift, window_profile
from modelyard.monitor.numerics import numerics
from modelyard.monitor.options import MonitorOptions
from modelyard.monitor.quality import join_feedback, live_quality
from modelyard.monitor.rows import inputs, primary, span
from modelyard.monitor.service import error_rate, latencies
from modelyard.monitor.staleness import staleness
from modelyard.monitor.suspicion import Suspicion, decide
from modelyard.monitor.window_report import WINDOW, Unjudged, WindowReport

if TYPE_CHECKING:
    import pyarrow as pa

    from modelyard.data.contract import Contract
    from modelyard.data.profile import Profile

_DEFAULTS = MonitorOptions()


def judge_window(
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
    spends `false_alarms / (k (k + 1))`, so that all looks together never spend more than the budget. A
    window of fewer than `min_rows` answered rows judges only what is a fact (infinities, age) and lists the
    rest as unjudged. Pure. Raises `MonitorError` when `table` is no prediction log.
    """
    rows = primary(table)
    answered = _answered(rows)
    actions = Actions(endpoint)
    features, absent = inputs(answered, contract)
    suspicions: list[Suspicion] = []
    unjudged = [Unjudged(f"monitor.drift[{name}]", "not logged: personal or absent") for name in absent]
    if answered.num_rows:
        suspicions += numerics(answered, features, actions.rollback)
    if released is not None and now is not None and options.stale_after is not None:
        suspicions.append(staleness(released, now, options.stale_after, actions.retrain))
    if rows.num_rows >= options.min_rows:
        suspicions.append(breach_rate(rows, options, actions.inspect))
        suspicions.append(error_rate(rows, requirements, options, actions.rollback))
    if answered.num_rows >= options.min_rows:
        suspicions += latencies(answered, requirements, options, actions.rollback)
        profiled = window_profile(answered, features, contract)
        suspicions += missing_rates(profiled, contract, options, actions.inspect)
        moved, unknown = drift(profiled, reference, options, actions)
        suspicions += moved
        unjudged += unknown
    else:
        why = f"too few rows to judge: {answered.num_rows:,} answered of {options.min_rows:,}"
        unjudged.insert(0, Unjudged(WINDOW, why))
    labelled = join_feedback(primary(log) if log is not None else rows, feedback, contract)
    quality, open_claims = live_quality(labelled, requirements, options, actions.retrain)
    suspicions += quality
    unjudged += open_claims
    tested = any(item.p_value is not None for item in suspicions)
    alpha = share(options.false_alarms, look) if tested else 0.0
    verdicts, alarms = decide(suspicions, alpha)
    since, until = span(rows)
    return WindowReport(rows.num_rows, since, until, verdicts, alarms, tuple(unjudged), look, alpha)


def _answered(rows: pa.Table) -> pa.Table:
    import pyarrow.compute as pc

    return rows.filter(pc.equal(rows["outcome"], "ok"))
