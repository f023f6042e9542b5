"""How often live rows break the contract."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from modelyard.monitor.binomial import above, rate
from modelyard.monitor.options import MonitorOptions
from modelyard.monitor.suspicion import Suspicion

if TYPE_CHECKING:
    import pyarrow as pa

    from modelyard.data.contract import Contract
    from modelyard.data.profile import Profile


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


def missing_rates(
    window: Profile, contract: Contract, options: MonitorOptions, action: str
) -> list[Suspicion]:
    """The promise that some, but not more, of a feature may be missing: no single row can break it."""
    found = []
    for column in contract.features:
        side = window.columns.get(column.name)
        if side is None or not 0.0 < column.missing_max < 1.0 or not side.count:
            continue
        lacking = round(side.missing_rate * side.count)
        found.append(
            Suspicion(
                claim=f"monitor.missing[{column.name}]",
                kind="breaches",
                subject=column.name,
                p_value=above(lacking, side.count, column.missing_max),
                relevant=side.missing_rate > column.missing_max,
                finding=f"{column.name} is missing in {lacking:,} of {side.count:,} rows "
                f"({side.missing_rate:.1%}), promised at most {column.missing_max:.1%}",
                action=action,
                effect=side.missing_rate - column.missing_max,
                measurements=(
                    rate("missing_rate", lacking, side.count, confidence=options.confidence, of=column.name),
                ),
                bound=column.missing_max,
            )
        )
    return found
