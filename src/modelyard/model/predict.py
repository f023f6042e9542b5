"""The main answer of a model for many rows, a batch at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from modelyard.core.spec import Tensors
from modelyard.model.model import MAIN_OUTPUT
from modelyard.model.runtime import Session


def predict(session: Session, tensors: Tensors, *, batch: int = 256) -> npt.NDArray[Any]:
    """The main output for all rows: `probabilities` [N,K] or `prediction` [N,1].

    Runs the session on slices of at most `batch` rows. No rows give an answer of no rows. Raises
    `ModelError` as `Session.run` does, and `ValueError` for a batch below one.
    """
    if batch < 1:
        raise ValueError(f"batch must be at least 1, got {batch}")
    names = {spec.name for spec in session.signature.outputs}
    name = next((known for known in MAIN_OUTPUT.values() if known in names), None)
    if name is None:
        name = session.signature.outputs[0].name
    wanted = (name,)
    rows = max((len(array) for array in tensors.values()), default=0)
    if rows <= batch:
        if rows == 0:
            spec = session.signature.output(name)
            return np.empty((0, *(max(size, 0) for size in spec.shape[1:])), spec.dtype)
        return session.run(tensors, wanted)[name]
    parts = [
        session.run({key: array[start : start + batch] for key, array in tensors.items()}, wanted)[name]
        for start in range(0, rows, batch)
    ]
    return np.concatenate(parts)
