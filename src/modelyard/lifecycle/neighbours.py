"""The training rows most like a given row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from modelyard.core.spec import Tensors
from modelyard.data.contract import Contract
from modelyard.data.tensors import features


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A training row: its place in the training part, its key and label as text, and its distance."""

    row: int
    key: str
    label: str
    distance: float


def nearest(tensors: Tensors, training: Any, contract: Contract, *, count: int = 3) -> list[Neighbour]:
    """The nearest rows by the mean over features of a standardised distance.

    Numbers differ by their difference in standard deviations, texts by 0 or 1, tensors by their root mean
    square difference in standard deviations of all their elements. A missing value differs by 1.
    """
    seen = features(training, contract)
    total = np.zeros(training.num_rows)
    for name, value in tensors.items():
        total += _distance(value, seen[name])
    total /= max(len(tensors), 1)
    order = np.argsort(total, kind="stable")[:count]
    labels = training.column(contract.label.name).to_pylist()
    keys = training.column(contract.key.name).to_pylist() if contract.key is not None else None
    return [
        Neighbour(int(row), str(keys[row]) if keys else "", str(labels[row]), float(total[row]))
        for row in order
    ]


def _distance(value: npt.NDArray[Any], seen: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    if value.dtype == object:
        different: npt.NDArray[np.float64] = (seen.reshape(len(seen)) != value.reshape(-1)[0]).astype(
            np.float64
        )
        return different
    numbers = seen.reshape(len(seen), -1).astype(np.float64)
    spread = float(np.nanstd(numbers)) or 1.0
    squares = ((numbers - value.reshape(1, -1).astype(np.float64)) / spread) ** 2
    return np.asarray(np.nan_to_num(np.sqrt(squares.mean(axis=1)), nan=1.0))
