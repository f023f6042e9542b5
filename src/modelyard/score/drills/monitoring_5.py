"""monitoring.5: the model is numerically stable."""

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
class NumericsDrill:
    """Plants one NaN and one overflow into the answers of a window: a single row must fire."""

    id: str = "monitoring.5"

    def run(self, context: CheckContext) -> Verdict:
        claim = f"drill.{self.id}"
        missing = lacking(claim, context, "contract", "reference", "log")
        if missing is not None or context.contract is None:
            return missing or Verdict(claim, False, "not drilled")
        name = "confidence" if context.contract.labels else "prediction"
        plants = [
            Plant(f"one NaN in {name}", "numerics", partial(spoilt, name=name, value=np.nan)),
            Plant(f"one overflow in {name}", "numerics", partial(spoilt, name=name, value=np.inf)),
        ]
        return prove(claim, context, plants)


def spoilt(table: pa.Table, name: str, value: float) -> pa.Table:
    """The table with one answer, in the middle, that is no finite number."""
    import pyarrow as pa

    values = table[name].to_numpy().astype(np.float64)
    values[len(values) // 2] = value
    return table.set_column(table.column_names.index(name), name, pa.array(values))
