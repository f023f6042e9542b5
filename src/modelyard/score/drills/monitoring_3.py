"""monitoring.3: training and serving features compute the same values."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from modelyard.measure.measurement import Verdict
from modelyard.monitor.skew import judge_skew
from modelyard.monitor.window_report import WindowReport
from modelyard.score.checks.missing_facts import lacking
from modelyard.score.context import CheckContext
from modelyard.score.drills.faults import altered, logged
from modelyard.score.drills.proof import Plant, prove

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, slots=True)
class SkewDrill:
    """Plants another computation of one feature into the served rows and compares with the offline ones."""

    id: str = "monitoring.3"

    def run(self, context: CheckContext) -> Verdict:
        claim = f"drill.{self.id}"
        missing = lacking(claim, context, "contract", "log", "offline")
        if missing is not None or context.contract is None or context.log is None or context.offline is None:
            return missing or Verdict(claim, False, "not drilled")
        contract, offline = logged(context.log, context.contract), context.offline

        def judge(table: pa.Table, look: int) -> WindowReport:
            return judge_skew(table, offline, contract, context.options, look=look)

        name = contract.features[0].name
        plant = Plant(f"a skew of {name}", "skew", partial(altered, contract=contract, name=name), name)
        return prove(claim, context, [plant], judge)
