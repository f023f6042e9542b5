"""The unit tests of a model's specification that every recipe can be put through (ML Test Score, infra.2)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modelyard.core.progress import Progress, quiet
from modelyard.measure.measurement import Verdict
from modelyard.train.dataset import Dataset
from modelyard.train.recipe import Recipe


def spec_tests(
    recipe: Recipe, params: Mapping[str, Any], dataset: Dataset, *, progress: Progress = quiet
) -> Verdict:
    """The verdict `infra.2`."""
    raise NotImplementedError
