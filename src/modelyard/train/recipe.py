"""The user's `recipe.py`: loading it, calling it, and saying clearly what is wrong with it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelyard.train.dataset import Task


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to train: the user's file and function, the metric, the search's limits and the seed.

    `function(trial)` in `path` returns an estimator, a torch module or a `Training`. A search makes at
    most `trials` trials in at most `budget` seconds (`None`: no limit). `epochs` and `batch_size`
    override what the recipe says for torch.
    """

    path: Path
    function: str = "build"
    task: Task = "classification"
    metric: str = "accuracy"
    trials: int = 20
    budget: float | None = None
    seed: int = 0
    epochs: int | None = None
    batch_size: int | None = None


def load_build(recipe: Recipe) -> Callable[[Any], object]:
    """The user's build function; see `TrainError` for what may be wrong with the file."""
    raise NotImplementedError
