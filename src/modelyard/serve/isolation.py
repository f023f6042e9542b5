"""Whether a batch answers like its items one by one: the proof before serving, and samples while serving."""

from __future__ import annotations

import numpy as np

from modelyard.core.spec import Tensors
from modelyard.model.runtime import Session

TOLERANCE = 1e-3
"""Largest difference between two right answers, absolute and relative.

Engines differ in the last bits between machines and batch sizes; int8 graphs by a step of their scale."""


def same_answers(left: Tensors, right: Tensors) -> bool:
    """Whether two answers are equal within the tolerance, in every output.

    >>> same_answers({"y": np.array([1.0])}, {"y": np.array([1.0002])})
    True
    >>> same_answers({"y": np.array([1.0])}, {"y": np.array([1.1])})
    False
    """
    if left.keys() != right.keys():
        return False
    for name, values in left.items():
        other = right[name]
        if values.shape != other.shape:
            return False
        if values.dtype == object:
            if values.tolist() != other.tolist():
                return False
        elif not np.allclose(values, other, rtol=TOLERANCE, atol=TOLERANCE, equal_nan=True):
            return False
    return True


def independent(session: Session, probe: Tensors) -> bool:
    """Whether a batch answers like its items one by one; a batch must be of two items or more to tell."""
    together = session.run(probe)
    rows = len(next(iter(probe.values())))
    for index in range(rows):
        part = slice(index, index + 1)
        alone = session.run({name: values[part] for name, values in probe.items()})
        if any(len(values) != rows for values in together.values()):
            return False
        if not same_answers(alone, {name: values[part] for name, values in together.items()}):
            return False
    return True
