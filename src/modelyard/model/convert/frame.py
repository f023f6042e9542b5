"""Named tensors as estimators are fitted on them: a frame of columns, or a matrix."""

from __future__ import annotations

from typing import Any

import numpy as np

from modelyard.core.errors import ConversionError
from modelyard.core.require import require
from modelyard.core.spec import Tensors


def is_scalar(array: np.ndarray[Any, Any]) -> bool:
    """Whether a tensor is a scalar column, `[N, 1]`."""
    return array.ndim == 2 and array.shape[1] == 1


def frame(tensors: Tensors) -> Any:
    """Scalar columns as a `DataFrame` by name; a lone tensor column as a matrix `[N, values]`.

    Numbers stay float32 with NaN where missing and text stays objects with "" where missing, exactly as
    the graph is given them. Raises `ConversionError` for tensor columns beside others.
    """
    if len(tensors) == 1:
        array = next(iter(tensors.values()))
        if not is_scalar(array):
            return array.reshape(len(array), -1)
    wide = [name for name, array in tensors.items() if not is_scalar(array)]
    if wide:
        raise ConversionError(
            "an estimator cannot take tensor columns beside others",
            value=wide,
            rule="scalar columns only, or one tensor column only",
            fix="give the other columns the role ignored, or build a torch module",
        )
    pandas = require("pandas", extra="train")
    columns = {name: array[:, 0] for name, array in tensors.items()}
    text = {name: object for name, array in columns.items() if array.dtype == object}
    return pandas.DataFrame(columns).astype(text)
