"""Trains twice with the same seed and compares what was learnt (ML Test Score, infra.1)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modelyard.core.progress import Progress, quiet
from modelyard.measure.measurement import Verdict
from modelyard.train.dataset import Dataset
from modelyard.train.recipe import Recipe


def reproduce(
    recipe: Recipe,
    params: Mapping[str, Any],
    dataset: Dataset,
    *,
    rows: int = 1000,
    epochs: int = 2,
    tolerance: float = 0.0,
    progress: Progress = quiet,
) -> Verdict:
    """The verdict `infra.1`."""
    raise NotImplementedError
