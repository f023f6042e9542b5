"""Two models on the same rows: how far apart, and whether one is no worse than a margin."""

from __future__ import annotations

import math

import numpy as np

from modelyard.measure import bootstrap
from modelyard.measure.exact import mcnemar, paired_proportions
from modelyard.measure.measurement import Measurement, Verdict
from modelyard.measure.metric import Array, metric
from modelyard.measure.quality import no_value


def difference(
    name: str,
    truth: Array,
    reference: Array,
    candidate: Array,
    *,
    confidence: float = 0.95,
    seed: int = 0,
    of: str = "",
) -> Measurement:
    """Candidate minus reference in the metric's unit, paired row by row, with its interval.

    Truth and answers as in `quality`; the measurement's metric is `NAME_difference`. Accuracy has Tango's
    score interval (honest when no row differs), all others a paired bootstrap, `max_error` no interval. What
    has no value gives NaN with the reason in `method`; arrays that do not fit raise `ValueError`.

    >>> truth = np.zeros(100, dtype=np.int64)
    >>> right, wrong = np.tile([0.9, 0.1], (100, 1)), np.tile([0.9, 0.1], (100, 1))
    >>> wrong[:4] = [0.1, 0.9]
    >>> found = difference("accuracy", truth, right, wrong)
    >>> found.value, found.method, found.high < 0.01
    (-0.04, 'tango-score', True)
    """
    found = metric(name)
    truth_, first = found.aligned(truth, reference)
    _, second = found.aligned(truth, candidate)
    label = f"{name}_difference"
    rows = len(truth_)
    for who, answer in (("reference", first), ("candidate", second)):
        reason = found.problem(truth_, answer)
        if reason:
            return no_value(found, label, f"{who}: {reason}", rows=rows, confidence=confidence, of=of)
    if first.shape != second.shape:
        raise ValueError(f"answers of one shape are compared, got {first.shape} and {second.shape}")
    if name == "accuracy":
        gained, lost = discordant(truth_, first, second)
        low, high = paired_proportions(gained, lost, rows, confidence)
        return Measurement(
            label, (gained - lost) / rows, low, high, found.unit, rows, confidence, "tango-score", of
        )
    resample = found.resample
    if resample is None:
        raise ValueError(f"{name} is a cost")

    def statistic(weights: Array) -> bootstrap.Floats:
        return resample(truth_, second, weights) - resample(truth_, first, weights)

    value = float(statistic(np.ones((1, rows)))[0])
    if name == "max_error":
        spread = bootstrap.Interval(None, None, "sample maximum, which has no interval")
    else:
        spread = bootstrap.interval(statistic, rows, value, confidence=confidence, seed=seed)
    return Measurement(
        label, value, spread.low, spread.high, found.unit, rows, confidence, f"paired-{spread.method}", of
    )


def non_inferior(
    name: str,
    truth: Array,
    reference: Array,
    candidate: Array,
    margin: float,
    *,
    confidence: float = 0.95,
    seed: int = 0,
    of: str = "",
) -> Verdict:
    """Whether the candidate is proved to be at most `margin` worse, in the metric's unit, one-sided.

    Passes when the one-sided confidence bound of "how much worse" lies below the margin, so few rows fail
    for want of proof and the verdict says so. Where no interval exists the measured value is held against
    the margin. A candidate or reference without a value fails.

    >>> truth = np.zeros(1000, dtype=np.int64)
    >>> answers = np.tile([0.9, 0.1], (1000, 1))
    >>> non_inferior("accuracy", truth, answers, answers, 0.01).passed
    True
    >>> print(non_inferior("accuracy", truth[:50], answers[:50], answers[:50], 0.01).why)
    accuracy is 0 worse, at most 0.0513 at 95 %: not proved to be within 0.01 on 50 rows (equal answers would need 268)
    """  # noqa: E501
    if not margin > 0 or not math.isfinite(margin):
        raise ValueError(f"the margin is a positive number in the metric's unit, got {margin}")
    found = metric(name)
    # A one-sided bound is the end of the two-sided interval with twice the tail.
    measured = difference(name, truth, reference, candidate, confidence=2 * confidence - 1, seed=seed, of=of)
    claim = f"non_inferior.{name}" + (f"[{of}]" if of else "")
    if math.isnan(measured.value):
        return Verdict(claim, False, f"{name} cannot be compared: {measured.method}", (measured,), margin)
    worse = found.worse(measured.value)
    edge = measured.low if found.better == "higher" else measured.high
    bound = worse if edge is None else found.worse(edge)
    passed = bound < margin if edge is not None else worse <= margin
    details: dict[str, object] = {"worse": worse, "worse_at_most": bound, "confidence": confidence}
    short = ""
    if name == "accuracy":
        aligned, first = found.aligned(truth, reference)
        gained, lost = discordant(aligned, first, found.aligned(truth, candidate)[1])
        needed = rows_to_prove(margin, confidence)
        details |= {
            "gained": gained,
            "lost": lost,
            "mcnemar_p": mcnemar(gained, lost),
            "rows_to_prove": needed,
        }
        if measured.n < needed:
            short = f" (equal answers would need {needed})"
    told = "proved" if passed else "not proved"
    way = f"{abs(worse):.3g} {'worse' if worse >= 0 else 'better'}"
    why = (
        f"{name} is {way}, at most {bound:.3g} at {confidence:.0%}: {told} to be within {margin:g} "
        f"on {measured.n} rows{short}"
    ).replace("%", " %")
    return Verdict(claim, passed, why, (measured,), margin, details)


def discordant(truth: Array, reference: Array, candidate: Array) -> tuple[int, int]:
    """Rows that only the candidate gets right, and rows that only the reference gets right."""
    first, second = reference.argmax(axis=1) == truth, candidate.argmax(axis=1) == truth
    return int(np.sum(second & ~first)), int(np.sum(first & ~second))


def rows_to_prove(margin: float, confidence: float = 0.95) -> int:
    """How many rows of equal answers it takes to prove an accuracy non-inferior at a margin.

    >>> rows_to_prove(0.005)
    539
    """
    from scipy.special import ndtri

    square = float(ndtri(confidence)) ** 2
    return math.floor(square * (1 - margin) / margin) + 1
