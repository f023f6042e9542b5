"""Fitting what follows scikit-learn's conventions, with the same result every time."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import numpy.typing as npt

from modelyard.core.require import require
from modelyard.core.spec import Tensors
from modelyard.train.dataset import Dataset
from modelyard.train.frame import frame


def prepare(estimator: Any, seed: int) -> Any:
    """The estimator with every open source of chance closed; what the recipe set itself is kept.

    Each parameter named `random_state` that is None becomes the seed. LightGBM is held to one thread
    (left open it takes every core, and its sums depend on how many there are) and made deterministic.
    """
    if not hasattr(estimator, "get_params"):
        return estimator
    params = estimator.get_params(deep=True)
    chosen: dict[str, Any] = {}
    for name, value in params.items():
        if value is None and name.rpartition("__")[2] == "random_state":
            chosen[name] = seed
    for name, value in [("", estimator), *params.items()]:
        if type(value).__module__.partition(".")[0] == "lightgbm":
            prefix = f"{name}__" if name else ""
            given = value.get_params()
            if given.get("n_jobs") is None:
                chosen[f"{prefix}n_jobs"] = 1
            # LightGBM reports each tree on the console unless told otherwise.
            chosen |= {
                f"{prefix}{key}": setting
                for key, setting in (("verbosity", -1), ("deterministic", True), ("force_row_wise", True))
                if not given.keys() & {key, "force_col_wise" if key == "force_row_wise" else "verbose"}
            }
    estimator.set_params(**chosen)
    return estimator


def again(estimator: Any) -> Any:
    """An unfitted estimator with the same parameters."""
    from sklearn.base import clone

    return clone(estimator)


def fit_estimator(estimator: Any, dataset: Dataset) -> tuple[str, ...]:
    """Fits in place on the training part, on one thread, and returns what the libraries warned of."""
    limits = require("threadpoolctl", extra="train")
    with warnings.catch_warnings(record=True) as caught, limits.threadpool_limits(1):
        warnings.simplefilter("always")
        estimator.fit(frame(dataset.train), dataset.train_targets)
    return tuple(dict.fromkeys(f"{item.category.__name__}: {item.message}" for item in caught))


def answer(estimator: Any, tensors: Tensors, classes: int) -> npt.NDArray[Any]:
    """Probabilities `[N, classes]` (0 for a class that the training part lacked) or predictions `[N, 1]`."""
    limits = require("threadpoolctl", extra="train")
    with warnings.catch_warnings(), limits.threadpool_limits(1):
        # OneHotEncoder(handle_unknown="ignore") tells of each unknown category; that is what was asked for.
        warnings.simplefilter("ignore")
        if not classes:
            return np.asarray(estimator.predict(frame(tensors)), dtype=np.float32).reshape(-1, 1)
        given = np.asarray(estimator.predict_proba(frame(tensors)), dtype=np.float32)
    whole = np.zeros((len(given), classes), dtype=np.float32)
    whole[:, np.asarray(estimator.classes_, dtype=np.int64)] = given
    return whole
