"""The one function that trains what a recipe builds, for tuning and for the final fit alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy.typing as npt

from modelyard.core.digest import Digest
from modelyard.core.progress import Progress, quiet
from modelyard.core.spec import Tensors
from modelyard.train.dataset import Dataset, Task
from modelyard.train.recipe import Recipe


@dataclass(frozen=True, slots=True)
class Fitted:
    """A trained estimator or torch module (`trained`), and how it came about.

    A torch module in `trained` is the `Answer` around the user's module: it takes the feature columns in
    order and answers probabilities or real units. `history` has one mapping an epoch (torch only), `code`
    is the digest of the recipe's files.
    """

    trained: Any
    kind: Literal["estimator", "torch"]
    task: Task
    labels: tuple[str, ...]
    features: tuple[str, ...]
    params: Mapping[str, Any]
    history: tuple[Mapping[str, float], ...]
    seconds: float
    code: Digest

    def predict(self, tensors: Tensors) -> npt.NDArray[Any]:
        """Probabilities `[N, K]` in the order of `labels`, or predictions `[N, 1]`; both float64 or float32."""
        raise NotImplementedError

    def weights_digest(self) -> Digest:
        """The digest of everything that was learnt; equal digests answer equally."""
        raise NotImplementedError


def fit(
    recipe: Recipe,
    params: Mapping[str, Any],
    dataset: Dataset,
    *,
    checkpoints: Path | None = None,
    progress: Progress = quiet,
) -> Fitted:
    """Builds the recipe with these parameters and trains it on the training part."""
    raise NotImplementedError
