"""How good answers are, with an interval: exact where one exists, bootstrap elsewhere."""

from __future__ import annotations

import numpy as np

from modelyard.measure import bootstrap
from modelyard.measure.exact import order_statistics, proportion
from modelyard.measure.measurement import Measurement
from modelyard.measure.metric import Array, Metric, metric


def quality(
    name: str, truth: Array, answer: Array, *, confidence: float = 0.95, seed: int = 0, of: str = ""
) -> Measurement:
    """A quality metric of answers against the truth, with its interval at `confidence`.

    Truth is int64 [N] (class indices) or float [N]; answer is probabilities [N,K], or predictions [N] or
    [N,1]. Accuracy has Clopper and Pearson's exact interval, the median an exact one from order statistics,
    `max_error` none, all others a bootstrap (`modelyard.measure.bootstrap`). What has no value (no rows,
    answers that are not finite, one class for `roc_auc`) gives NaN with the reason in `method`. Raises
    `ModelyardError` for an unknown metric, `ValueError` for lengths and shapes that do not fit.

    >>> answers = np.tile([0.8, 0.2], (100, 1))
    >>> found = quality("accuracy", np.repeat([0, 1], [90, 10]), answers)
    >>> found.value, round(found.low, 3), round(found.high, 3), found.method
    (0.9, 0.824, 0.951, 'clopper-pearson')
    """
    found = metric(name)
    truth, answer = found.aligned(truth, answer)
    reason = found.problem(truth, answer)
    if reason:
        return no_value(found, name, reason, rows=len(truth), confidence=confidence, of=of)
    value = found.compute(truth, answer)
    spread = _interval(found, (truth, answer), value, confidence, seed)
    return Measurement(
        name, value, spread.low, spread.high, found.unit, len(truth), confidence, spread.method, of
    )


def no_value(found: Metric, label: str, reason: str, *, rows: int, confidence: float, of: str) -> Measurement:
    """The measurement that says why there is none."""
    return Measurement(
        label, float("nan"), None, None, found.unit, rows, confidence, f"no value: {reason}", of
    )


def _interval(
    found: Metric, rows: tuple[Array, Array], value: float, confidence: float, seed: int
) -> bootstrap.Interval:
    truth, answer = rows
    if found.name == "accuracy":
        low, high = proportion(round(value * len(truth)), len(truth), confidence)
        return bootstrap.Interval(low, high, "clopper-pearson")
    if found.name == "max_error":
        return bootstrap.Interval(None, None, "sample maximum, which has no interval")
    if found.name == "median_absolute_error":
        ends = order_statistics(np.sort(np.abs(truth - answer)), 0.5, confidence)
        return bootstrap.Interval(*ends, "order-statistics")
    resample = found.resample
    if resample is None:
        raise ValueError(f"{found.name} is a cost")
    spread = bootstrap.interval(
        lambda weights: resample(truth, answer, weights), len(truth), value, confidence=confidence, seed=seed
    )
    if spread.method == "bootstrap-degenerate" and found.needs == "labels" and value in (0.0, 1.0):
        # All rows right (or wrong): resampling sees no spread, yet the rarest class may be hiding some.
        rarest = int(np.unique(truth, return_counts=True)[1].min())
        low, high = proportion(round(value * rarest), rarest, confidence)
        return bootstrap.Interval(low, high, "clopper-pearson of the rarest class")
    return spread
