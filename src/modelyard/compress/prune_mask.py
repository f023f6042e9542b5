"""Which weights to keep: masks by magnitude, over one layer, all layers, or N of every M."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]


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


def fractions(matrices: Sequence[Array], part: float, together: bool) -> list[float]:
    """What part of each matrix goes: the same of each, or by one threshold on magnitude over RMS.

    Together, no matrix loses more than 98 % or keeps fewer than one value: an emptied layer cuts the network.
    """
    if not together or len(matrices) < 2:
        return [part] * len(matrices)
    scaled = [
        np.abs(matrix) / (np.sqrt(np.mean(np.square(matrix, dtype=np.float64))) or 1.0) for matrix in matrices
    ]
    every = np.concatenate([values.ravel() for values in scaled])
    count = round(part * every.size)
    if count == 0:
        return [0.0] * len(matrices)
    threshold = np.partition(every, count - 1)[count - 1]
    found = [float((values <= threshold).mean()) for values in scaled]
    most = max(0.98, part)
    return [min(value, most, 1 - 1 / matrix.size) for value, matrix in zip(found, matrices, strict=True)]


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
