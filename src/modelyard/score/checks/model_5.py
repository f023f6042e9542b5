"""model.5: a simpler model is not better."""

from __future__ import annotations

from dataclasses import dataclass, replace

from modelyard.measure.compare import difference
from modelyard.measure.measurement import Measurement, Verdict
from modelyard.measure.metric import Array, metric
from modelyard.score.checks.missing_facts import lacking
from modelyard.score.context import CheckContext


@dataclass(frozen=True, slots=True)
class BaselineCheck:
    """Compares the model with each simpler one on the same held-out rows, row by row.

    Passes when the model's gain over each is more than `margin` with 95 % one-sided confidence; a negative
    margin asks for non-inferiority only. A simpler model that does as well is a reason to ship the simpler
    one, so a tie fails.
    """

    id: str = "model.5"

    def run(self, context: CheckContext) -> Verdict:
        missing = lacking(self.id, context, "tensors", "targets", "predict", "metric", "baselines")
        if missing is not None or context.targets is None or context.predict is None:
            return missing or Verdict(self.id, False, "not measured")
        answers = context.predict(context.tensors)
        gains = [
            gain(context.metric, context.targets, simple, answers, name, context.seed)
            for name, simple in context.baselines.items()
        ]
        lost = [item for item in gains if item.low is None or not item.low > context.margin]
        worst = min(lost or gains, key=lambda item: item.value)
        interval = "" if worst.low is None else f" (at least {worst.low:+.4g} with 95 % confidence)"
        why = (
            f"the gain in {context.metric} over {worst.of} is {worst.value:+.4g}{interval}, "
            f"{'not ' if lost else ''}above {context.margin:g}"
        )
        return Verdict(
            self.id, not lost, why, tuple(gains), context.margin, {"not_beaten": [item.of for item in lost]}
        )


def gain(name: str, truth: Array, simple: Array, answers: Array, of: str, seed: int) -> Measurement:
    """How much better than a simpler model, positive when better; 90 % interval (95 % on each side)."""
    found = replace(
        difference(name, truth, simple, answers, confidence=0.9, seed=seed, of=of), metric=f"{name} gain"
    )
    if metric(name).better == "higher":
        return found
    low, high = found.low, found.high
    return replace(
        found, value=-found.value, low=None if high is None else -high, high=None if low is None else -low
    )
