"""monitoring.2: data invariants hold in training and serving inputs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from modelyard.measure.measurement import Verdict
from modelyard.score.checks.missing_facts import lacking
from modelyard.score.context import CheckContext
from modelyard.score.drills.faults import breach, breaking, drifted, logged
from modelyard.score.drills.proof import Plant, prove


@dataclass(frozen=True, slots=True)
class InvariantDrill:
    """Plants a broken promise into a quarter of the rows, and a drift into one feature of all rows."""

    id: str = "monitoring.2"

    def run(self, context: CheckContext) -> Verdict:
        claim = f"drill.{self.id}"
        missing = lacking(claim, context, "contract", "reference", "log")
        if missing is not None or context.contract is None or context.log is None:
            return missing or Verdict(claim, False, "not drilled")
        contract = logged(context.log, context.contract)
        breakable = [column.name for column in contract.features if breaking(column) is not None]
        plants = []
        if breakable:
            apply = partial(breach, contract=contract, name=breakable[0])
            plants.append(Plant(f"a breach of {breakable[0]}", "breaches", apply))
        for column in contract.features[:1]:
            apply = partial(drifted, contract=contract, name=column.name)
            plants.append(Plant(f"a drift of {column.name}", "drift", apply, column.name))
        return prove(claim, context, plants)
