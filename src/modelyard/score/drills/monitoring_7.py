"""monitoring.7: the model has not regressed in prediction quality on served data."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from modelyard.measure.measurement import Verdict
from modelyard.measure.metric import METRICS
from modelyard.score.checks.missing_facts import lacking
from modelyard.score.context import CheckContext
from modelyard.score.drills.proof import Plant, judge_of, prove

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, slots=True)
class QualityDrill:
    """Plants a shift of labels into the feedback: quality must fire, and not on the real feedback."""

    id: str = "monitoring.7"

    def run(self, context: CheckContext) -> Verdict:
        claim = f"drill.{self.id}"
        missing = lacking(claim, context, "contract", "reference", "log", "feedback")
        if missing is not None or context.feedback is None or context.contract is None:
            return missing or Verdict(claim, False, "not drilled")
        if not any(item.metric in METRICS and not item.slice for item in context.requirements):
            why = "not drilled: no requirement on quality"
            return Verdict(claim, False, why, details={"drill": True, "lacking": ["requirements"]})
        wrong = replace(context, feedback=shifted(context.feedback, context.contract.labels))
        plants = [Plant("a shift of the labels", "quality", lambda table: table)]
        return prove(claim, context, plants, planted=judge_of(wrong))


def shifted(feedback: pa.Table, labels: tuple[str, ...]) -> pa.Table:
    """Feedback in which every label is the next one, or every value lies five spreads higher."""
    import pyarrow as pa

    if labels:
        turned = dict(zip(labels, (*labels[1:], labels[0]), strict=True))
        given = [turned.get(label, label) for label in feedback["label"].to_pylist()]
        return feedback.set_column(
            feedback.column_names.index("label"), "label", pa.array(given, pa.string())
        )
    values = feedback["value"].to_numpy().astype(np.float64)
    spread = float(np.nanstd(values)) or 1.0
    place = feedback.column_names.index("value")
    return feedback.set_column(place, "value", pa.array(values + 5.0 * spread))
