"""The estimator door: named tensors as the pandas frame, or the matrix, that estimators are fitted on."""

from __future__ import annotations

from typing import Any

from modelyard.core.errors import TrainError
from modelyard.core.require import require
from modelyard.core.spec import Tensors


def frame(tensors: Tensors) -> Any:
    """Scalar columns as a `DataFrame` with the contract's names; a lone tensor column as `[N, values]`.

    Numbers stay float32 with NaN where missing, text stays objects with "" where missing: exactly what
    the exported graph will be given.
    """
    scalar = {name: array.ndim == 2 and array.shape[1] == 1 for name, array in tensors.items()}
    if all(scalar.values()):
        pandas = require("pandas", extra="train")
        return pandas.DataFrame({name: array[:, 0] for name, array in tensors.items()}).astype(
            {name: object for name, array in tensors.items() if array.dtype == object}
        )
    if len(tensors) == 1:
        array = next(iter(tensors.values()))
        return array.reshape(len(array), -1)
    raise TrainError(
        "an estimator cannot take tensor columns beside others",
        value=[name for name, single in scalar.items() if not single],
        rule="scalar columns only, or one tensor column only",
        fix="give the other columns the role ignored in contract.toml, or build a torch module",
    )
