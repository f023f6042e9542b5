"""The simpler models that a released model has to beat (ML Test Score, model.5)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from modelyard.core.spec import Tensors
from modelyard.train.dataset import Dataset


@dataclass(frozen=True, slots=True)
class Baseline:
    """A simple model's answers on the rows asked about: `[N, K]` probabilities or `[N, 1]` predictions."""

    name: str
    answers: npt.NDArray[Any]
    seconds: float


def baselines(dataset: Dataset, tensors: Tensors, *, seed: int = 0) -> tuple[Baseline, ...]:
    """Fits `constant`, `linear` and `tree` on the training part and answers for `tensors`."""
    raise NotImplementedError
