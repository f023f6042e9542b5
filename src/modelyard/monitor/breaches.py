"""How often live rows break the contract."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from modelyard.monitor.binomial import above, rate
from modelyard.monitor.options import MonitorOptions
from modelyard.monitor.suspicion import Suspicion

if TYPE_CHECKING:
    import pyarrow as pa


def breach_rate(table: pa.Table, options: MonitorOptions, action: str) -> Suspicion:
    """The share of rows with a breach against `breach_max`, with the most broken promises named."""
    import pyarrow.compute as pc

    rows = table.num_rows
    lists = table["breaches"]
    counts = pc.fill_null(pc.list_value_length(lists), 0)
    broken = pc.sum(pc.greater(counts, 0)).as_py() or 0
    promises = Counter(text for text in pc.list_flatten(lists).to_pylist() if text)
    worst = promises.most_common(5)
    named = "; ".join(f"{text} ({count:,} rows)" for text, count in worst[:3])
    share = broken / rows
    finding = f"{broken:,} of {rows:,} rows ({share:.1%}) break the contract, limit {options.breach_max:.1%}"
    return Suspicion(
        claim="monitor.breaches",
        kind="breaches",
        subject=worst[0][0].partition(":")[0] if worst else "contract",
        p_value=above(broken, rows, options.breach_max),
        relevant=share > options.breach_max,
        finding=finding + (f": {named}" if named else ""),
        action=action,
        effect=share,
        measurements=(rate("breach_rate", broken, rows, confidence=options.confidence),),
        bound=options.breach_max,
        details={"promises": [{"promise": text, "rows": count} for text, count in worst]},
    )
