"""Which weights to keep: masks by magnitude, over one layer, all layers, or N of every M."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]
SCOPES = ("lamp", "global", "layer")


def smallest(values: Array, part: float) -> Mask:
    """True for what stays when that part of the values, those of least magnitude, goes.

    Exactly `round(part * size)` go, whatever the ties; values of equal magnitude go in order of place.

    >>> smallest(np.array([3.0, -1.0, 2.0, 0.5]), 0.5).tolist()
    [True, False, True, False]
    """
    count = round(part * values.size)
    mask = np.ones(values.size, dtype=np.bool_)
    if count:
        mask[np.argsort(np.abs(values), axis=None, kind="stable")[:count]] = False
    return mask.reshape(values.shape)


def fractions(matrices: Sequence[Array], part: float, scope: str) -> list[float]:
    """What part of each matrix goes so that `part` of all values goes.

    "layer" takes the same of each; "global" all that lie below one magnitude; "lamp" all that lie below one
    score of `lamp_scores`. A global threshold may empty a layer whose weights are small and cut the network
    (Tanaka et al. 2020, arXiv:2006.05467, call it layer collapse), so no matrix loses more than 98 %, or more
    than `part` where that is above, or its last value; a little less than `part` may go then.
    """
    if scope == "layer" or len(matrices) < 2:
        return [part] * len(matrices)
    scores = [np.abs(matrix) if scope == "global" else lamp_scores(matrix) for matrix in matrices]
    every = np.concatenate([values.ravel() for values in scores])
    count = round(part * every.size)
    if count == 0:
        return [0.0] * len(matrices)
    threshold = np.partition(every, count - 1)[count - 1]
    found = [float((values <= threshold).mean()) for values in scores]
    most = max(0.98, part)
    return [min(value, most, 1 - 1 / matrix.size) for value, matrix in zip(found, matrices, strict=True)]


def lamp_scores(matrix: Array) -> Array:
    """Each weight's share of its layer's energy once all smaller ones are gone, in the matrix's shape.

    w^2 over the sum of the squares that are at least as large: what removing it costs the layer, relative to
    what is left (LAMP, Lee et al. 2021, arXiv:2010.07611). The largest scores 1, so no layer is emptied; a
    layer's scale does not count.

    >>> lamp_scores(np.array([[1.0, -2.0], [2.0, 4.0]])).round(2).tolist()
    [[0.04, 0.17], [0.2, 1.0]]
    """
    squares = np.square(matrix.ravel().astype(np.float64))
    order = np.argsort(squares, kind="stable")
    rising = squares[order]
    above = np.cumsum(rising[::-1])[::-1]
    scores = np.empty_like(squares)
    scores[order] = np.divide(rising, above, out=np.zeros_like(rising), where=above > 0)
    return scores.reshape(matrix.shape)


def n_of_m(matrix: Array, kept: int, of: int) -> Mask:
    """True for the `kept` largest magnitudes of every `of` neighbours down each column of `[in, out]`.

    A last group that is shorter keeps as many, or all that it has.

    >>> n_of_m(np.array([[1.0], [-4.0], [2.0], [3.0], [9.0]]), 2, 4)[:, 0].tolist()
    [False, True, False, True, True]
    """
    rows, columns = matrix.shape
    groups = -(-rows // of)
    # Padding counts as smaller than any weight, so it is never what stays.
    padded = np.full((groups * of, columns), -1.0)
    padded[:rows] = np.abs(matrix)
    order = np.argsort(-padded.reshape(groups, of, columns), axis=1, kind="stable")
    mask = np.zeros((groups, of, columns), dtype=np.bool_)
    np.put_along_axis(mask, order[:, :kept], True, axis=1)
    return mask.reshape(groups * of, columns)[:rows]


def cubic(start: float, end: float, step: int, steps: int) -> float:
    """The sparsity after a step of a gradual pruning: fast at first, slow at the end.

    s = end + (start - end) (1 - step/steps)^3, Zhu and Gupta 2017, arXiv:1710.01878, equation 1.

    >>> [round(cubic(0.0, 0.8, step, 4), 3) for step in range(5)]
    [0.0, 0.463, 0.7, 0.788, 0.8]
    """
    return end + (start - end) * (1 - step / steps) ** 3
