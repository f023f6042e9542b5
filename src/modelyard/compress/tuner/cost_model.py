"""A learned guess of what a setting costs, from what was measured: which to measure next."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from modelyard.compress.tuner.space import Floats

_TREES_FROM = 24
_RIDGE = 1e-2


class CostModel(Protocol):
    """Learns from rows of features [N,D] and costs [N] (log seconds against the default; lower is better)."""

    def fit(self, rows: Floats, costs: Floats) -> None:
        """Called before `predict`, with at least one row; again whenever there is more to learn from."""
        ...

    def predict(self, rows: Floats) -> Floats:
        """A guess for each row."""
        ...


class Ridge:
    """Least squares on the features and their products, shrunk: enough for a handful of measurements."""

    def __init__(self) -> None:
        self._weights: Floats = np.zeros(0)
        self._mean = 0.0

    def fit(self, rows: Floats, costs: Floats) -> None:
        wide = _with_products(rows)
        self._mean = float(costs.mean())
        gram = wide @ wide.T + _RIDGE * max(1.0, float(np.trace(wide @ wide.T)) / len(wide)) * np.eye(
            len(wide)
        )
        # In its dual form: there are more products than measurements.
        self._weights = wide.T @ np.linalg.solve(gram, costs - self._mean)

    def predict(self, rows: Floats) -> Floats:
        return np.asarray(_with_products(rows) @ self._weights + self._mean)


class Trees:
    """Gradient-boosted trees (scikit-learn's), for when there is more to learn from."""

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed
        self._model: Any = None

    def fit(self, rows: Floats, costs: Floats) -> None:
        from sklearn.ensemble import GradientBoostingRegressor

        self._model = GradientBoostingRegressor(
            n_estimators=80, max_depth=3, learning_rate=0.1, subsample=0.8, random_state=self._seed
        )
        self._model.fit(rows, costs)

    def predict(self, rows: Floats) -> Floats:
        return np.asarray(self._model.predict(rows), dtype=np.float64)


def model_for(measured: int, seed: int = 0) -> CostModel:
    """The model that suits so many measurements; without scikit-learn always the ridge."""
    if measured >= _TREES_FROM:
        import importlib.util

        if importlib.util.find_spec("sklearn") is not None:
            return Trees(seed)
    return Ridge()


def rank_agreement(guesses: Floats, costs: Floats) -> float:
    """Of all pairs with different costs, the share that the guesses put in the right order (0.5: by chance).

    >>> rank_agreement(np.array([1.0, 2.0, 3.0]), np.array([10.0, 20.0, 15.0]))
    0.6666666666666666
    """
    left, right = np.triu_indices(len(costs), 1)
    apart = costs[left] != costs[right]
    if not apart.any():
        return 0.5
    order = np.sign(costs[left] - costs[right])[apart]
    guessed = np.sign(guesses[left] - guesses[right])[apart]
    return float(np.mean(np.where(guessed == 0, 0.5, guessed == order)))


def _with_products(rows: Floats) -> Floats:
    first, second = np.triu_indices(rows.shape[1])
    return np.hstack([rows, rows[:, first] * rows[:, second]])
