"""The simpler models that a released model has to beat (ML Test Score, model.5)."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from modelyard.core.spec import Tensors
from modelyard.train.dataset import Dataset
from modelyard.train.estimator import prepare

_CATEGORIES = 50
"""Text columns with more distinct values than this are left to the rest of the columns."""


@dataclass(frozen=True, slots=True)
class Baseline:
    """A simple model's answers on the rows asked about: `[N, K]` probabilities or `[N, 1]` predictions."""

    name: str
    answers: npt.NDArray[Any]
    seconds: float


def baselines(
    dataset: Dataset, tensors: Tensors, *, seed: int = 0, rows: int = 20_000
) -> tuple[Baseline, ...]:
    """Fits `constant`, `linear` and `tree` on the training part and answers for `tensors`.

    The constant is the classes' shares or the targets' mean; linear is a logistic or ridge regression on
    standardised numbers and one-hot text; the tree has at most 16 leaves. Tensor columns are flattened,
    missing numbers become the median. At most `rows` training rows are used.
    """
    small = dataset.sample(rows, seed=seed)
    columns = _Columns(small.train)
    train, asked = columns.matrix(small.train), columns.matrix(tensors)
    found = []
    for name, estimator in _models(dataset.task == "classification"):
        start = time.perf_counter()
        with _one_thread(), warnings.catch_warnings():
            # A baseline that stopped before it converged is still the baseline that was stated.
            warnings.simplefilter("ignore")
            prepare(estimator, seed).fit(train, small.train_targets)
            answers = _answers(estimator, asked, len(dataset.labels))
        found.append(Baseline(name, answers, time.perf_counter() - start))
    return tuple(found)


def _models(classifies: bool) -> Iterator[tuple[str, Any]]:
    from sklearn.dummy import DummyClassifier, DummyRegressor
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

    if classifies:
        yield "constant", DummyClassifier(strategy="prior")
        yield "linear", make_pipeline(StandardScaler(), LogisticRegression(max_iter=50, C=0.1))
        yield "tree", DecisionTreeClassifier(max_leaf_nodes=16)
    else:
        yield "constant", DummyRegressor()
        yield "linear", make_pipeline(StandardScaler(), Ridge())
        yield "tree", DecisionTreeRegressor(max_leaf_nodes=16)


def _answers(estimator: Any, asked: npt.NDArray[Any], classes: int) -> npt.NDArray[Any]:
    if not classes:
        return np.asarray(estimator.predict(asked), dtype=np.float64).reshape(-1, 1)
    whole = np.zeros((len(asked), classes))
    whole[:, np.asarray(estimator.classes_, dtype=np.int64)] = estimator.predict_proba(asked)
    return whole


class _Columns:
    """Named tensors as one matrix, with medians and categories learnt from the training part."""

    def __init__(self, train: Tensors) -> None:
        self._fill: dict[str, npt.NDArray[Any]] = {}
        self._known: dict[str, list[str]] = {}
        for name, array in train.items():
            if array.dtype == object:
                known = sorted({str(text) for text in array.ravel()})
                self._known[name] = known if len(known) <= _CATEGORIES else []
            else:
                self._fill[name] = self._median(array)

    @staticmethod
    def _median(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        flat = array.reshape(len(array), -1).astype(np.float64)
        missing = ~np.isfinite(flat)
        if not missing.any():
            return np.zeros(flat.shape[1])
        flat[missing] = np.nan
        with warnings.catch_warnings():
            # A column without a single number has no median and becomes 0.
            warnings.simplefilter("ignore", RuntimeWarning)
            return np.nan_to_num(np.nanmedian(flat, axis=0))

    def matrix(self, tensors: Tensors) -> npt.NDArray[np.float64]:
        """The rows `[N, features]`, every value finite."""
        parts = []
        rows = len(next(iter(tensors.values())))
        for name, known in self._known.items():
            text = tensors[name].reshape(rows, -1)[:, :1].astype(str)
            parts.append((text == np.array([known], dtype=str).reshape(1, -1)).astype(np.float64))
        for name, fill in self._fill.items():
            flat = tensors[name].reshape(rows, -1).astype(np.float64)
            parts.append(np.where(np.isfinite(flat), flat, fill))
        return np.concatenate([*parts, np.zeros((rows, 1))], axis=1)


def _one_thread() -> Any:
    from threadpoolctl import threadpool_limits

    return threadpool_limits(1)
