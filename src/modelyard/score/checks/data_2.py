"""data.2: all features are beneficial."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from modelyard.core.spec import Tensors
from modelyard.measure.compare import difference
from modelyard.measure.measurement import Measurement, Verdict
from modelyard.measure.metric import Array, metric
from modelyard.score.checks.missing_facts import lacking
from modelyard.score.context import CheckContext

ROWS = 2000
"""Held-out rows that are looked at: enough for a benefit of about 2 % to show."""


@dataclass(frozen=True, slots=True)
class BenefitCheck:
    """Permutes one feature at a time among the held-out rows and measures what quality is lost, row by row.

    A feature whose interval reaches zero has no measured benefit and is named. Passes when every feature
    could be measured and at most `useless_share` of them are without benefit: a correlated pair hides each
    other's benefit, so that one useless feature is a hint and no failure.

    Source: permutation importance (Breiman, 2001; Fisher, Rudin and Dominici, 2019).
    """

    id: str = "data.2"

    def run(self, context: CheckContext) -> Verdict:
        missing = lacking(self.id, context, "tensors", "targets", "predict", "metric")
        if missing is not None or context.targets is None or context.predict is None:
            return missing or Verdict(self.id, False, "not measured")
        rng = np.random.default_rng(context.seed)
        rows = _chosen(len(context.targets), rng)
        tensors = {name: values[rows] for name, values in context.tensors.items()}
        truth = context.targets[rows]
        usual = context.predict(tensors)
        benefits = {}
        for name in tensors:
            changed = context.predict(permuted(tensors, name, rng))
            benefits[name] = benefit(context.metric, truth, usual, changed, name, context.seed)
        return self._verdict(benefits, context)

    def _verdict(self, benefits: dict[str, Measurement], context: CheckContext) -> Verdict:
        unknown = sorted(name for name, item in benefits.items() if not np.isfinite(item.value))
        useless = sorted(
            name
            for name, item in benefits.items()
            if name not in unknown and (item.low is None or item.low <= 0.0)
        )
        share = len(useless) / len(benefits)
        passed = not unknown and share <= context.useless_share
        if unknown:
            why = f"the benefit of {', '.join(unknown)} could not be measured"
        elif useless:
            why = (
                f"{len(benefits) - len(useless)} of {len(benefits)} features have a measured benefit; "
                f"none measured for {', '.join(useless[:8])} (allowed share {context.useless_share:.0%})"
            )
        else:
            why = f"each of {len(benefits)} features has a measured benefit"
        ranked = sorted(benefits.values(), key=lambda item: -item.value if np.isfinite(item.value) else 0.0)
        return Verdict(
            self.id, passed, why, tuple(ranked), context.useless_share,
            {"without_benefit": useless, "not_measured": unknown},
        )  # fmt: skip


def permuted(tensors: Tensors, name: str, rng: np.random.Generator) -> Tensors:
    """The tensors with one feature's rows in another order; the others are shared, not copied."""
    order = rng.permutation(len(tensors[name]))
    return {**tensors, name: tensors[name][order]}


def benefit(name: str, truth: Array, usual: Array, changed: Array, feature: str, seed: int) -> Measurement:
    """What is lost without a feature, in the metric's unit, positive when the feature helps."""
    lost = difference(name, truth, usual, changed, seed=seed, of=feature)
    named = replace(lost, metric=f"{name} benefit")
    if metric(name).better == "lower":
        return named
    return replace(
        named,
        value=-lost.value,
        low=None if lost.high is None else -lost.high,
        high=None if lost.low is None else -lost.low,
    )


def _chosen(rows: int, rng: np.random.Generator) -> Array:
    return np.arange(rows) if rows <= ROWS else np.sort(rng.choice(rows, ROWS, replace=False))
