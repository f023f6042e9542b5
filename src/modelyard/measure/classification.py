"""Classification metrics under row weights: truth int64 [N], probabilities [N,K], weights [B,N] -> [B].

Definitions are those of scikit-learn (`sklearn.metrics`), with `zero_division=0`; a class without weight in
truth and answers is left out of a macro average.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[Any]
Floats: TypeAlias = npt.NDArray[np.float64]

_BINS = 15


def accuracy(truth: Array, answer: Array, weights: Array) -> Floats:
    """The share of rows whose most probable class is the true one."""
    return _mean((answer.argmax(axis=1) == truth).astype(np.float64), weights)


def balanced_accuracy(truth: Array, answer: Array, weights: Array) -> Floats:
    """The mean of recall over the classes that occur in the truth."""
    hit, true, _ = _counts(truth, answer, weights)
    return _average(_ratio(hit, true), true > 0)


def recall_macro(truth: Array, answer: Array, weights: Array) -> Floats:
    """The mean of recall over the classes that occur in truth or answers."""
    hit, true, found = _counts(truth, answer, weights)
    return _average(_ratio(hit, true), true + found > 0)


def precision_macro(truth: Array, answer: Array, weights: Array) -> Floats:
    """The mean of precision over the classes that occur in truth or answers."""
    hit, true, found = _counts(truth, answer, weights)
    return _average(_ratio(hit, found), true + found > 0)


def f1_macro(truth: Array, answer: Array, weights: Array) -> Floats:
    """The mean of F1 over the classes that occur in truth or answers."""
    hit, true, found = _counts(truth, answer, weights)
    return _average(_ratio(2 * hit, true + found), true + found > 0)


def log_loss(truth: Array, answer: Array, weights: Array) -> Floats:
    """The mean of -log(probability of the true class), clipped at the type's epsilon."""
    chosen = answer[np.arange(len(truth)), truth]
    tiny = float(np.finfo(answer.dtype).eps)
    return _mean(-np.log(np.clip(chosen.astype(np.float64), tiny, 1.0)), weights)


def brier(truth: Array, answer: Array, weights: Array) -> Floats:
    """The mean squared distance to the one-hot truth; halved for two classes, as is usual there (0 to 1)."""
    distance = np.square(answer.astype(np.float64) - _one_hot(truth, answer.shape[1])).sum(axis=1)
    return _mean(distance / 2 if answer.shape[1] == 2 else distance, weights)


def calibration_error(truth: Array, answer: Array, weights: Array) -> Floats:
    """Expected calibration error over 15 bins of equal width (Guo et al. 2017, equation 3)."""
    confidence = answer.max(axis=1).astype(np.float64)
    gap = (answer.argmax(axis=1) == truth) - confidence
    bins = np.clip(np.ceil(confidence * _BINS).astype(np.int64) - 1, 0, _BINS - 1)
    summed = weights @ (_one_hot(bins, _BINS) * gap[:, None])
    return np.asarray(np.abs(summed).sum(axis=1) / weights.sum(axis=1))


def roc_auc(truth: Array, answer: Array, weights: Array) -> Floats:
    """Area under the ROC curve; for more than two classes the mean of one against the rest.

    Classes without positives or without negatives are left out; NaN when none is left.
    """
    # With resamples side by side in memory, sorting rows moves whole lines and sums run in step.
    columns = np.ascontiguousarray(weights.T)
    if answer.shape[1] == 2:
        return _area(truth == 1, answer[:, 1], columns)
    areas = np.stack([_area(truth == k, answer[:, k], columns) for k in np.unique(truth)], axis=1)
    return _average(np.nan_to_num(areas), np.isfinite(areas))


def _area(positive: Array, scores: Array, columns: Array) -> Floats:
    """The Mann-Whitney form: the share of (positive, negative) pairs in order, ties counting half.

    `columns` are the weights [N,B].
    """
    order = np.argsort(scores, kind="stable")
    ranked, up = scores[order], positive[order]
    starts = np.flatnonzero(np.append(True, ranked[1:] != ranked[:-1]))
    ordered = columns[order]
    plus = ordered[up].sum(axis=0)
    minus = ordered.sum(axis=0) - plus
    if len(starts) == len(ranked):
        ordered[up] = 0.0
        below = np.cumsum(ordered, axis=0, out=ordered)
        pairs = np.einsum("nb,nb->b", columns[order[up]], below[up])
    else:
        high = np.add.reduceat(np.where(up[:, None], ordered, 0.0), starts, axis=0)
        low = np.add.reduceat(np.where(up[:, None], 0.0, ordered), starts, axis=0)
        pairs = np.einsum("nb,nb->b", high, np.cumsum(low, axis=0) - low / 2)
    total = plus * minus
    return np.asarray(np.divide(pairs, total, out=np.full(len(total), np.nan), where=total > 0))


def _counts(truth: Array, answer: Array, weights: Array) -> tuple[Floats, Floats, Floats]:
    """Weighted counts a class [B,K]: hits, rows of that truth, rows of that answer."""
    classes = answer.shape[1]
    true, found = _one_hot(truth, classes), _one_hot(answer.argmax(axis=1), classes)
    return weights @ (true * found), weights @ true, weights @ found


def _one_hot(indices: Array, classes: int) -> Floats:
    return np.asarray(indices[:, None] == np.arange(classes), dtype=np.float64)


def _mean(values: Floats, weights: Array) -> Floats:
    return np.asarray((weights @ values) / weights.sum(axis=1), dtype=np.float64)


def _ratio(above: Floats, below: Floats) -> Floats:
    return np.asarray(np.divide(above, below, out=np.zeros_like(above), where=below > 0))


def _average(values: Floats, where: Array) -> Floats:
    count = where.sum(axis=1)
    empty = np.full(len(values), np.nan)
    return np.asarray(np.divide((values * where).sum(axis=1), count, out=empty, where=count > 0))
