"""Regression metrics under row weights: truth float64 [N], values float64 [N], weights [B,N] -> [B].

Definitions are those of scikit-learn (`sklearn.metrics`).
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[Any]
Floats: TypeAlias = npt.NDArray[np.float64]


def mean_absolute_error(truth: Array, answer: Array, weights: Array) -> Floats:
    """The mean of |truth - answer|."""
    return _mean(np.abs(truth - answer), weights)


def root_mean_squared_error(truth: Array, answer: Array, weights: Array) -> Floats:
    """The square root of the mean of (truth - answer)^2."""
    return np.asarray(np.sqrt(_mean(np.square(truth - answer), weights)))


def mean_absolute_percentage_error(truth: Array, answer: Array, weights: Array) -> Floats:
    """The mean of |truth - answer| / |truth|, as a ratio; a truth of 0 counts as the smallest step."""
    return _mean(np.abs(truth - answer) / np.maximum(np.abs(truth), np.finfo(np.float64).eps), weights)


def r2(truth: Array, answer: Array, weights: Array) -> Floats:
    """1 - squared error over the truth's variance; NaN where the truth does not vary."""
    centred = truth - truth.mean()
    total = weights.sum(axis=1)
    spread = weights @ np.square(centred) - np.square(weights @ centred) / total
    error = weights @ np.square(truth - answer)
    # Cancellation leaves a rest of rounding where the truth is constant.
    varies = spread > 1e-12 * np.maximum(weights @ np.square(centred), np.finfo(np.float64).tiny)
    return np.asarray(1.0 - np.divide(error, spread, out=np.full(len(weights), np.nan), where=varies))


def median_absolute_error(truth: Array, answer: Array, weights: Array) -> Floats:
    """The median of |truth - answer|; the mean of the two middle ones for an even count."""
    error = np.abs(truth - answer)
    order = np.argsort(error, kind="stable")
    below = np.cumsum(weights[:, order], axis=1)
    half = below[:, -1:] / 2
    last = len(error) - 1
    lower = np.minimum((below < half).sum(axis=1), last)
    upper = np.minimum((below <= half).sum(axis=1), last)
    ranked = error[order]
    return np.asarray((ranked[lower] + ranked[upper]) / 2)


def max_error(truth: Array, answer: Array, weights: Array) -> Floats:
    """The largest |truth - answer| among rows that have weight."""
    return np.asarray(np.where(weights > 0, np.abs(truth - answer), 0.0).max(axis=1))


def _mean(values: Array, weights: Array) -> Floats:
    return np.asarray((weights @ values) / weights.sum(axis=1), dtype=np.float64)
