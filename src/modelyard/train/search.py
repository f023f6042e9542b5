"""The search over a recipe's hyper-parameters: seeded, pruned, resumable, kept in the store's database."""

from __future__ import annotations

from modelyard.core.progress import Progress, quiet
from modelyard.store.records import Records
from modelyard.train.dataset import Dataset
from modelyard.train.recipe import Recipe
from modelyard.train.study import Study


def search(
    recipe: Recipe, dataset: Dataset, records: Records, *, name: str, progress: Progress = quiet
) -> Study:
    """Runs, or continues, the study of that name until the recipe's trials or budget are used up."""
    raise NotImplementedError
