"""monitoring.6: the model has not experienced regressions in computing performance."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from modelyard.measure.measurement import Verdict
from modelyard.score.checks.missing_facts import lacking
from modelyard.score.context import CheckContext
from modelyard.score.drills.proof import Plant, prove

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, slots=True)
class SlowDownDrill:
    """Plants a slow-down into a tenth of the requests, to twice the bound; needs a latency requirement."""

    id: str = "monitoring.6"

    def run(self, context: CheckContext) -> Verdict:
        claim = f"drill.{self.id}"
        missing = lacking(claim, context, "contract", "reference", "log")
        if missing is not None:
            return missing
        bounds = [item for item in context.requirements if item.metric.startswith("latency_p")]
        if not bounds:
            why = "not drilled: no requirement on latency"
            return Verdict(claim, False, why, details={"drill": True, "lacking": ["requirements"]})
        wanted = max(bounds, key=lambda item: item.metric)
        share = 0.7 if wanted.metric == "latency_p50" else 0.1
        apply = partial(slowed, seconds=2.0 * wanted.bound, share=share)
        return prove(claim, context, [Plant(f"a slow-down of {share:.0%}", "latency", apply, wanted.metric)])


def slowed(table: pa.Table, seconds: float, share: float) -> pa.Table:
    """The table with every so-many-th request taking so long."""
    import pyarrow as pa

    values = table["latency"].to_numpy().astype(np.float64)
    slow = np.arange(len(values)) % 10 < round(10 * share)
    values[slow] = np.maximum(values[slow], seconds)
    return table.set_column(table.column_names.index("latency"), "latency", pa.array(values))
