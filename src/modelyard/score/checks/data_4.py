"""data.4: features adhere to meta-level requirements."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from modelyard.data.contract import Column, Contract
from modelyard.measure.measurement import Verdict
from modelyard.score.checks.missing_facts import lacking
from modelyard.score.context import CheckContext


@dataclass(frozen=True, slots=True)
class PolicyCheck:
    """Holds policy rules against every feature and the label; each broken rule is named with its column.

    The rules: somebody owns the column; its source is named and allowed; it is not deprecated; a personal
    or sensitive column is a feature only where the project says so on purpose, and says how long such data
    is kept.
    """

    id: str = "data.4"

    def run(self, context: CheckContext) -> Verdict:
        missing = lacking(self.id, context, "contract")
        if missing is not None or context.contract is None:
            return missing or Verdict(self.id, False, "not measured")
        contract = context.contract
        columns = (*contract.features, contract.label)
        broken = [text for column in columns for text in _broken(column, contract, context)]
        why = (
            f"{len(broken)} broken rules: {'; '.join(broken[:4])}"
            if broken
            else f"{len(columns)} columns keep the rules of owner, source, deprecation, privacy and retention"
        )
        return Verdict(self.id, not broken, why, details={"broken": broken, "columns": len(columns)})


def _broken(column: Column, contract: Contract, context: CheckContext) -> Iterator[str]:
    name = column.name
    if not (column.owner or contract.owner or context.owner):
        yield f"{name} has no owner"
    source = column.source or contract.source
    if context.allowed_sources is not None and source not in context.allowed_sources:
        yield f"{name} comes from {source!r}, allowed: {', '.join(context.allowed_sources)}"
    elif not source:
        yield f"{name} has no source"
    if column.deprecated:
        yield f"{name} is deprecated"
    if column.private:
        if column.role == "feature" and name not in context.allowed_personal:
            yield f"{name} is {column.privacy} and a feature without leave (personal_features)"
        if not column.retention:
            yield f"{name} is {column.privacy} and has no retention"
