"""data.3: no feature's cost is too much."""

from __future__ import annotations

from dataclasses import dataclass

from modelyard.core.unit import show_seconds, show_size
from modelyard.measure.measurement import Measurement, Verdict
from modelyard.score.checks.missing_facts import lacking
from modelyard.score.context import CheckContext


@dataclass(frozen=True, slots=True)
class CostCheck:
    """Passes when the seconds that each feature costs a row are known and within the budget."""

    id: str = "data.3"

    def run(self, context: CheckContext) -> Verdict:
        missing = lacking(self.id, context, "contract", "costs", "cost_budget")
        if missing is not None or context.contract is None or context.cost_budget is None:
            return missing or Verdict(self.id, False, "not measured")
        unknown = [item.name for item in context.contract.features if item.name not in context.costs]
        over = [name for name, cost in context.costs.items() if not cost.seconds <= context.cost_budget]
        dearest = max(context.costs, key=lambda name: context.costs[name].seconds)
        worst = context.costs[dearest]
        why = (
            f"the dearest feature is {dearest}: {show_seconds(worst.seconds)} and {show_size(worst.bytes)} "
            f"a row, {worst.missing:.1%} missing; budget {show_seconds(context.cost_budget)}"
        )
        if unknown:
            why = f"no cost was measured for {', '.join(unknown)}; {why}"
        measured = tuple(
            Measurement("feature_cost", cost.seconds, unit="s", of=name)
            for name, cost in context.costs.items()
        )
        details = {
            name: {"seconds": cost.seconds, "bytes": cost.bytes, "missing": cost.missing}
            for name, cost in context.costs.items()
        }
        return Verdict(
            self.id,
            not over and not unknown,
            why,
            measured,
            context.cost_budget,
            {"costs": details, "over": over},
        )
