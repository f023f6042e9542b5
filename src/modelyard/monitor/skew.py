"""Whether the features that were served are the features that are computed offline, key by key."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from modelyard.data.tensors import features
from modelyard.monitor.binomial import above, rate
from modelyard.monitor.budget import share
from modelyard.monitor.options import MonitorOptions
from modelyard.monitor.rows import inputs, only, primary, span
from modelyard.monitor.suspicion import Suspicion, decide
from modelyard.monitor.window_report import WINDOW, Unjudged, WindowReport

if TYPE_CHECKING:
    import pyarrow as pa

    from modelyard.data.contract import Contract

_DEFAULTS = MonitorOptions()
TOLERANCE = 1e-5
"""Relative difference that float32 and another order of summing may make."""


def judge_skew(
    table: pa.Table,
    offline: pa.Table,
    contract: Contract,
    options: MonitorOptions = _DEFAULTS,
    *,
    key: str = "id",
    look: int = 1,
) -> WindowReport:
    """Compares the logged features with those recomputed offline for the same keys, feature by feature.

    `offline` has the column `key` with the log's ids and the contract's feature columns. A feature is skewed
    when more than `breach_max` of the joined rows differ, significantly; features share the look's part of
    the false-alarm budget as in `judge_window`.
    """
    import pyarrow.compute as pc

    rows = primary(table)
    rows = rows.filter(pc.equal(rows["outcome"], "ok"))
    places = pc.index_in(rows["id"], value_set=offline[key].combine_chunks())
    joined = rows.filter(pc.is_valid(places))
    since, until = span(joined)
    if joined.num_rows < options.min_rows:
        why = f"too few rows to judge: {joined.num_rows:,} joined of {options.min_rows:,}"
        return WindowReport(joined.num_rows, since, until, (), (), (Unjudged(WINDOW, why),), look, 0.0)
    served, absent = inputs(joined, contract)
    narrow = only(contract, served.column_names)
    logged = features(served, narrow)
    computed = features(offline.take(places.drop_null()), narrow)
    suspicions = [_suspicion(name, logged[name], computed[name], options) for name in served.column_names]
    alpha = share(options.false_alarms, look)
    verdicts, alarms = decide(suspicions, alpha)
    unjudged = tuple(Unjudged(f"monitor.skew[{name}]", "not logged: personal or absent") for name in absent)
    return WindowReport(joined.num_rows, since, until, verdicts, alarms, unjudged, look, alpha)


def _suspicion(
    name: str, logged: npt.NDArray[Any], computed: npt.NDArray[Any], options: MonitorOptions
) -> Suspicion:
    differ = _differ(logged, computed)
    count, rows = int(differ.sum()), len(differ)
    finding = (
        f"{name} was served with other values than offline in {count:,} of {rows:,} rows ({count / rows:.1%})"
    )
    if count:
        row = int(np.argmax(differ))
        finding += f", for example {_show(logged[row])} instead of {_show(computed[row])}"
    return Suspicion(
        claim=f"monitor.skew[{name}]",
        kind="skew",
        subject=name,
        p_value=above(count, rows, options.breach_max),
        relevant=count / rows > options.breach_max,
        finding=finding,
        action="modelyard report",
        effect=count / rows,
        measurements=(rate("skew_rate", count, rows, confidence=options.confidence, of=name),),
        bound=options.breach_max,
    )


def _differ(logged: npt.NDArray[Any], computed: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    one, other = logged.reshape(len(logged), -1), computed.reshape(len(computed), -1)
    if one.dtype.kind in "OUS":
        return np.asarray((one != other).any(axis=1))
    close = np.isclose(
        one.astype(np.float64), other.astype(np.float64), rtol=TOLERANCE, atol=1e-9, equal_nan=True
    )
    return np.asarray(~close.all(axis=1))


def _show(value: npt.NDArray[Any]) -> str:
    flat = value.reshape(-1)
    return f"{flat[0]:.4g}" if flat.dtype.kind in "fiub" else repr(str(flat[0])[:40])
