"""model.7: the model has been tested for considerations of inclusion."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from modelyard.measure.measurement import Measurement, Verdict
from modelyard.measure.metric import Array, metric
from modelyard.measure.quality import quality
from modelyard.score.checks.missing_facts import lacking
from modelyard.score.context import CheckContext

FEWEST = 20
"""Rows of a group below which it is named and not compared."""


@dataclass(frozen=True, slots=True)
class InclusionCheck:
    """Quality and rates of every declared group, and the largest gap in quality between two of them.

    Intervals hold at 95 % over all groups together (Bonferroni). Fails when a gap exceeds `group_gap`; where
    the project states none, when the intervals of the best and the worst group do not even touch. The rates
    are each label's share among the answers, or the mean answer and the mean error (answer minus truth).
    """

    id: str = "model.7"

    def run(self, context: CheckContext) -> Verdict:
        missing = lacking(self.id, context, "groups", "tensors", "targets", "predict", "metric")
        if missing is not None or context.targets is None or context.predict is None:
            return missing or Verdict(self.id, False, "not measured")
        answers = context.predict(context.tensors)
        parts = [
            (f"{column} = {value}", values == value)
            for column, values in context.groups.items()
            for value in np.unique(values)
        ]
        large = [(name, mask) for name, mask in parts if np.count_nonzero(mask) >= FEWEST]
        level = 1.0 - 0.05 / max(len(large), 1)
        measured = [
            quality(context.metric, context.targets[mask], answers[mask], confidence=level,
                    seed=context.seed, of=name)
            for name, mask in large
        ]  # fmt: skip
        rates = {name: _rates(context, answers[mask], context.targets[mask]) for name, mask in large}
        small = [name for name, mask in parts if np.count_nonzero(mask) < FEWEST]
        return self._verdict(context, measured, rates, small)

    def _verdict(
        self,
        context: CheckContext,
        measured: list[Measurement],
        rates: dict[str, dict[str, float]],
        small: list[str],
    ) -> Verdict:
        gaps = []
        for column in context.groups:
            inside = [item for item in measured if item.of.startswith(f"{column} = ")]
            if len(inside) >= 2:
                gaps.append((column, *_extremes(inside, context)))
        compared = {column for column, *_ in gaps}
        unknown = [column for column in context.groups if column not in compared]
        wide = [(column, best, worst) for column, best, worst in gaps if _too_wide(best, worst, context)]
        passed = not wide and not unknown
        if unknown:
            why = f"{', '.join(unknown)}: fewer than two groups of {FEWEST} rows, nothing to compare"
        else:
            column, best, worst = max(wide or gaps, key=lambda gap: abs(gap[1].value - gap[2].value))
            limit = "touching intervals" if context.group_gap is None else f"a gap of {context.group_gap:g}"
            why = (
                f"the widest gap in {context.metric} is {abs(best.value - worst.value):.4g}, between "
                f"{best.of} ({best.value:.4g}) and {worst.of} ({worst.value:.4g}); allowed: {limit}"
            )
        details: dict[str, Any] = {"rates": rates, "too_small": small, "wide": [item[0] for item in wide]}
        return Verdict(self.id, passed, why, tuple(measured), context.group_gap, details)


def _extremes(inside: list[Measurement], context: CheckContext) -> tuple[Measurement, Measurement]:
    ordered = sorted(inside, key=lambda item: item.value)
    return (
        (ordered[-1], ordered[0]) if metric(context.metric).better == "higher" else (ordered[0], ordered[-1])
    )


def _too_wide(best: Measurement, worst: Measurement, context: CheckContext) -> bool:
    if context.group_gap is not None:
        return not abs(best.value - worst.value) <= context.group_gap
    if None in (best.low, best.high, worst.low, worst.high):
        return False
    lower, upper = sorted([best, worst], key=lambda item: item.value)
    return (lower.high or 0.0) < (upper.low or 0.0)


def _rates(context: CheckContext, answers: Array, truth: Array) -> dict[str, float]:
    if context.labels:
        chosen = answers.argmax(axis=1)
        return {label: float(np.mean(chosen == index)) for index, label in enumerate(context.labels)} | {
            "rows": float(len(truth))
        }
    values = answers.reshape(-1)
    return {
        "mean_answer": float(values.mean()),
        "mean_error": float((values - truth).mean()),
        "rows": float(len(truth)),
    }
