from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from modelyard.train.dataset import Dataset
from modelyard.train.recipe import Recipe

NETWORK = """
    import torch
    from modelyard.train.training import Training

    def build(trial):
        width = trial.suggest_int("width", 4, 16)
        module = torch.nn.Sequential(
            torch.nn.Linear(2, width), torch.nn.BatchNorm1d(width), torch.nn.ReLU(),
            torch.nn.Dropout(0.1), torch.nn.Linear(width, {outputs}),
        )
        return Training(module, learning_rate=0.05, epochs=4, batch_size=16)
"""

RIDGE = """
    from sklearn.compose import ColumnTransformer
    from sklearn.linear_model import Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    def build(trial):
        columns = ColumnTransformer(
            [("n", StandardScaler(), ["a", "b"]), ("c", OneHotEncoder(handle_unknown="ignore"), ["color"])]
        )
        return make_pipeline(columns, Ridge(alpha=trial.suggest_float("alpha", 1e-3, 1e3, log=True)))
"""


@pytest.fixture
def recipe_of(tmp_path: Path) -> Callable[..., Recipe]:
    """Writes a project's recipe and says how to train with it."""

    def make(text: str, *, folder: str = "project", **options: Any) -> Recipe:
        path = tmp_path / folder / "recipe.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(textwrap.dedent(text))
        return Recipe(path, **options)

    return make


@pytest.fixture
def network(recipe_of: Callable[..., Recipe]) -> Recipe:
    return recipe_of(NETWORK.format(outputs=3), trials=4)


@pytest.fixture
def ridge(recipe_of: Callable[..., Recipe]) -> Recipe:
    return recipe_of(RIDGE, task="regression", metric="mae", trials=6)


def _numbers(rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    values = np.random.default_rng(seed).normal(size=(rows, 2)).astype(np.float32)
    return values[:, :1], values[:, 1:]


@pytest.fixture
def points() -> Dataset:
    """Three classes in the plane, by angle."""

    def part(rows: int, seed: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
        a, b = _numbers(rows, seed)
        angle = np.arctan2(a, b)[:, 0]
        return {"a": a, "b": b}, np.digitize(angle, [-1.0, 1.0]).astype(np.int64)

    train, validation = part(81, 1), part(40, 2)
    return Dataset("classification", ("left", "up", "right"), *train, *validation)


@pytest.fixture
def prices() -> Dataset:
    """A regression in large units on two numbers, one with gaps in no row, and a colour."""

    def part(rows: int, seed: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
        a, b = _numbers(rows, seed)
        color = np.array(["red", "blue"], dtype=object)[np.arange(rows) % 2].reshape(-1, 1)
        values = 50_000.0 + 9_000.0 * a[:, 0] - 4_000.0 * b[:, 0] + 2_000.0 * (color[:, 0] == "red")
        return {"a": a, "b": b, "color": color}, values.astype(np.float64)

    return Dataset("regression", (), *part(80, 3), *part(40, 4))


@pytest.fixture
def records(tmp_path: Path) -> Any:
    """As much of the records as the search uses: a database."""
    return SimpleNamespace(url=f"sqlite:///{tmp_path}/records.db")
