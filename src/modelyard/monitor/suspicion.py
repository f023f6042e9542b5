"""What one look at one thing brings, before the whole window decides what counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from modelyard.measure.measurement import Measurement, Verdict
from modelyard.monitor.alarm import Alarm, AlarmKind
from modelyard.monitor.budget import holm


@dataclass(frozen=True, slots=True)
class Suspicion:
    """A hypothesis that all is well, and the evidence against it.

    It falls when the evidence is `relevant` (the effect reaches its floor) and significant: `p_value` is
    valid under "all is well", or `None` for a plain fact (an infinity was seen) that chance does not make.
    `finding` says what was seen, with its numbers.
    """

    claim: str
    kind: AlarmKind
    subject: str
    p_value: float | None
    relevant: bool
    finding: str
    action: str
    effect: float = 0.0
    measurements: tuple[Measurement, ...] = ()
    bound: float | None = None
    details: Mapping[str, Any] = field(default_factory=dict)


def decide(suspicions: Sequence[Suspicion], alpha: float) -> tuple[tuple[Verdict, ...], tuple[Alarm, ...]]:
    """The verdict on each suspicion, all under one level `alpha`, and the alarms.

    Several failures of one kind about one subject (a tensor's mean and its maximum) make one alarm, led by
    the largest effect.
    """
    tested = [index for index, item in enumerate(suspicions) if item.p_value is not None]
    values = np.array([suspicions[index].p_value for index in tested], dtype=np.float64)
    significant = np.ones(len(suspicions), dtype=np.bool_)
    significant[tested] = holm(values, alpha)
    verdicts = []
    fallen: dict[tuple[str, str], list[tuple[Suspicion, Verdict]]] = {}
    for item, chance in zip(suspicions, significant, strict=True):
        failed = bool(item.relevant and chance)
        verdict = Verdict(
            item.claim, not failed, item.finding + _reason(item, significant=bool(chance), alpha=alpha),
            item.measurements, item.bound,
            {**item.details, "effect": item.effect, "p_value": item.p_value, "alpha": alpha,
             "hypotheses": len(tested)},
        )  # fmt: skip
        verdicts.append(verdict)
        if failed:
            fallen.setdefault((item.kind, item.subject), []).append((item, verdict))
    return tuple(verdicts), tuple(_alarm(group) for group in fallen.values())


def _reason(item: Suspicion, *, significant: bool, alpha: float) -> str:
    if item.p_value is None:
        return ""
    chance = f"p {item.p_value:.2g}" if item.p_value >= 1e-99 else "p < 1e-99"
    if item.relevant and not significant:
        return f"; {chance} may be chance at this look's level {alpha:.2g}"
    if significant and not item.relevant:
        return f"; {chance}, but too small to matter"
    return f"; {chance}" if item.relevant else ""


def _alarm(group: list[tuple[Suspicion, Verdict]]) -> Alarm:
    item, verdict = max(group, key=lambda pair: pair[0].effect)
    rest = len(group) - 1
    more = f" (and {rest} more statistic{'s' if rest > 1 else ''} of it)" if rest else ""
    return Alarm(item.kind, item.subject, verdict.why + more, item.action, verdict)
