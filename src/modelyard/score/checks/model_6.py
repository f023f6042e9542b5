"""model.6: model quality is sufficient on all important data slices."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from modelyard.measure.measurement import Measurement, Verdict
from modelyard.measure.metric import Array, metric
from modelyard.measure.quality import quality
from modelyard.score.checks.missing_facts import lacking
from modelyard.score.context import CheckContext
from modelyard.score.slices import automatic_slices

FEWEST = 20
"""Rows of a slice below which it is not judged."""
_BY_LABEL = ("accuracy", "log_loss", "brier")


@dataclass(frozen=True, slots=True)
class SliceCheck:
    """Measures quality on declared and on automatically found slices against the bound.

    The bound is the slice's own requirement, else `slice_bound`, else the requirement on the metric. A
    declared slice fails when its measured value misses the bound, or when it has fewer than 20 rows. A found
    one fails only when its whole interval does, at 95 % over all found slices together (Bonferroni):
    among fifty slices some always look bad.
    """

    id: str = "model.6"

    def run(self, context: CheckContext) -> Verdict:
        missing = lacking(self.id, context, "tensors", "targets", "predict", "metric")
        if missing is not None or context.targets is None or context.predict is None:
            return missing or Verdict(self.id, False, "not measured")
        bound = _bound(context, "", otherwise=np.nan if context.slice_bound is None else context.slice_bound)
        if np.isnan(bound):
            return Verdict(self.id, False, f"not judged: no requirement on {context.metric} gives a bound")
        answers = context.predict(context.tensors)
        declared = [
            _measure(context, context.targets, answers, name, mask, 0.95)
            for name, mask in context.slices.items()
        ]
        labels = context.labels if context.metric in _BY_LABEL else ()
        found = {
            name: mask
            for name, mask in automatic_slices(context.tensors, context.targets, labels).items()
            if FEWEST <= np.count_nonzero(mask) < len(mask)
        }
        level = 1.0 - 0.05 / max(len(found), 1)
        automatic = [
            _measure(context, context.targets, answers, name, mask, level) for name, mask in found.items()
        ]
        return self._verdict(context, bound, declared, automatic)

    def _verdict(
        self,
        context: CheckContext,
        bound: float,
        declared: list[Measurement],
        automatic: list[Measurement],
    ) -> Verdict:
        higher = metric(context.metric).better == "higher"
        weak = [
            item
            for item in declared
            if item.n < FEWEST
            or not _reaches(item.value, _bound(context, item.of, otherwise=bound), higher=higher)
        ]
        judged = [item for item in automatic if np.isfinite(item.value)]
        for item in judged:
            edge = item.high if higher else item.low
            if not _reaches(item.value if edge is None else edge, bound, higher=higher):
                weak.append(item)
        count = f"{len(declared)} declared and {len(judged)} found slices"
        if weak:
            worst = weak[0]
            span = "" if worst.low is None else f" [{worst.low:.4g}, {worst.high:.4g}]"
            words = "too few rows" if worst.n < FEWEST else f"{context.metric} {worst.value:.4g}{span}"
            why = (
                f"{len(weak)} of {count} miss the bound {bound:g}, first {worst.of}: {words}, {worst.n} rows"
            )
        else:
            why = f"{count} reach {context.metric} {bound:g}"
        details = {
            "weak": [item.of for item in weak],
            "declared": [item.of for item in declared],
            "not_measurable": [item.of for item in automatic if not np.isfinite(item.value)],
        }
        return Verdict(
            self.id, not weak and bool(declared or judged), why, (*declared, *judged), bound, details
        )


def _measure(
    context: CheckContext, truth: Array, answers: Array, name: str, mask: Array, confidence: float
) -> Measurement:
    return quality(
        context.metric, truth[mask], answers[mask], confidence=confidence, seed=context.seed, of=name
    )


def _bound(context: CheckContext, part: str, *, otherwise: float) -> float:
    bounds = [
        item.bound
        for item in context.requirements
        if item.metric == context.metric and item.slice == part and item.where == "test"
    ]
    if part == "" and context.slice_bound is not None:
        return context.slice_bound
    return bounds[0] if bounds else otherwise


def _reaches(value: float, bound: float, *, higher: bool) -> bool:
    return value >= bound if higher else value <= bound
