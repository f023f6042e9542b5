"""What a model is judged by: each metric once, in a form that the bootstrap can resample without a loop."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[Any]


class Resample(Protocol):
    """Computes a metric under many row weights at once: truth [N], answer [N] or [N,K], weights [B,N] -> [B]."""

    def __call__(self, truth: Array, answer: Array, weights: Array) -> npt.NDArray[np.float64]: ...


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric with its direction and unit.

    `needs` says what it reads: `labels` the most probable class, `probabilities` the whole row,
    `values` a regression's prediction, `cost` nothing of the answers. `compute(truth, answer)` is its value.
    """

    name: str
    task: Literal["classification", "regression", "cost"]
    needs: Literal["labels", "probabilities", "values", "cost"]
    better: Literal["higher", "lower"]
    unit: str
    resample: Resample

    def compute(self, truth: Array, answer: Array) -> float:
        """The metric's value; truth int64 [N] or float [N]; answer probabilities [N,K] or values [N]."""
        raise NotImplementedError


METRICS: Mapping[str, Metric] = {}
COST_METRICS: Mapping[str, Metric] = {}


def metric(name: str) -> Metric:
    """The metric of that name, cost metrics included; `ModelyardError` with "did you mean" otherwise."""
    raise NotImplementedError
