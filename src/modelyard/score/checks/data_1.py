"""data.1: feature expectations are captured in a schema, and held against every split."""

from __future__ import annotations

from dataclasses import dataclass

from modelyard.measure.measurement import Verdict
from modelyard.score.checks.missing_facts import lacking
from modelyard.score.context import CheckContext


@dataclass(frozen=True, slots=True)
class SchemaCheck:
    """Passes when the contract holds on every split that was checked; lists what was not checked."""

    id: str = "data.1"

    def run(self, context: CheckContext) -> Verdict:
        missing = lacking(self.id, context, "contract", "findings")
        if missing is not None:
            return missing
        broken = {name: verdict for name, verdict in context.findings.items() if not verdict.passed}
        unchecked = sorted(
            {
                str(item)
                for verdict in context.findings.values()
                for item in verdict.details.get("unchecked", ())
            }
        )
        if broken:
            name, verdict = next(iter(broken.items()))
            why = f"the contract does not hold on {', '.join(broken)}: {name}: {verdict.why}"
        else:
            why = f"the contract holds on {', '.join(context.findings)}"
            why += (
                f"; not checked: {'; '.join(unchecked[:3])}" if unchecked else "; nothing was left unchecked"
            )
        splits = {
            name: {"passed": verdict.passed, "why": verdict.why, "rows": verdict.details.get("rows")}
            for name, verdict in context.findings.items()
        }
        details = {"splits": splits, "unchecked": unchecked}
        if context.contract is not None:
            details["contract"] = context.contract.digest
        return Verdict(self.id, not broken, why, details=details)
