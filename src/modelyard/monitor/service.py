"""How the service behaves: failed requests and latency, against the requirements."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from modelyard.core.unit import show_seconds
from modelyard.measure.measurement import Measurement
from modelyard.measure.requirement import Requirement
from modelyard.monitor.binomial import above, rate
from modelyard.monitor.options import MonitorOptions
from modelyard.monitor.suspicion import Suspicion

if TYPE_CHECKING:
    import pyarrow as pa

_QUANTILES = {"latency_p50": 0.5, "latency_p90": 0.9, "latency_p95": 0.95, "latency_p99": 0.99}


def error_rate(
    table: pa.Table, requirements: Sequence[Requirement], options: MonitorOptions, action: str
) -> Suspicion:
    """The share of rows that failed against the `error_rate` requirement, or `error_max` without one."""
    import pyarrow.compute as pc

    bounds = [item.bound for item in requirements if item.metric == "error_rate"]
    limit = min(bounds) if bounds else options.error_max
    rows = table.num_rows
    failed = pc.sum(pc.equal(table["outcome"], "failed")).as_py() or 0
    return Suspicion(
        claim="monitor.error_rate",
        kind="errors",
        subject="error_rate",
        p_value=above(failed, rows, limit),
        relevant=failed / rows > limit,
        finding=f"{failed:,} of {rows:,} requests ({failed / rows:.2%}) failed, limit {limit:.2%}",
        action=action,
        effect=failed / rows,
        measurements=(rate("error_rate", failed, rows, confidence=options.confidence),),
        bound=limit,
    )


def latencies(
    table: pa.Table, requirements: Sequence[Requirement], options: MonitorOptions, action: str
) -> list[Suspicion]:
    """Each required latency quantile, tested exactly.

    "The 99th percentile is at most b" says that at most 1 % of requests take longer than b: a binomial test
    of that share needs no shape of the distribution.
    """
    seconds = table["latency"].drop_null().to_numpy().astype(np.float64)
    seconds = np.sort(seconds[np.isfinite(seconds)])
    wanted = [item for item in requirements if item.metric in _QUANTILES and item.direction == "at_most"]
    if not len(seconds):
        return []
    return [_latency(seconds, item, options, action) for item in wanted]


def _latency(
    seconds: np.ndarray[tuple[int], np.dtype[np.float64]],
    requirement: Requirement,
    options: MonitorOptions,
    action: str,
) -> Suspicion:
    level = _QUANTILES[requirement.metric]
    measured = quantile(requirement.metric, seconds, level, options.confidence)
    slower = int(np.count_nonzero(seconds > requirement.bound))
    share = slower / len(seconds)
    finding = (
        f"{requirement.metric} is {show_seconds(measured.value)}, required at most "
        f"{show_seconds(requirement.bound)}: {share:.1%} of {len(seconds):,} requests are slower, "
        f"allowed {1 - level:.1%}"
    )
    return Suspicion(
        claim=f"monitor.{requirement.metric}",
        kind="latency",
        subject=requirement.metric,
        p_value=above(slower, len(seconds), 1.0 - level),
        relevant=measured.value > requirement.bound,
        finding=finding,
        action=action,
        effect=share,
        measurements=(measured,),
        bound=requirement.bound,
    )


def quantile(
    metric: str, ordered: np.ndarray[tuple[int], np.dtype[np.float64]], level: float, confidence: float
) -> Measurement:
    """A quantile of sorted values with its order-statistic interval, which no distribution can break.

    Where the sample is too small for one end of the interval (the 99th percentile of 20 values has no upper
    one), that end is `None`.
    """
    from scipy import stats

    rows = len(ordered)
    tail = (1.0 - confidence) / 2.0
    first = int(stats.binom.ppf(tail, rows, level))
    last = int(stats.binom.ppf(1.0 - tail, rows, level))
    return Measurement(
        metric,
        float(ordered[min(max(int(np.ceil(level * rows)) - 1, 0), rows - 1)]),
        float(ordered[first - 1]) if first >= 1 else None,
        float(ordered[last]) if last < rows else None,
        "s",
        rows,
        confidence,
        "order-statistics",
    )
