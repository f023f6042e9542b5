"""Some held-out rows with the answers of training time: how a server proves that it gives the same ones."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from modelyard.core.digest import finite
from modelyard.core.errors import ReleaseError
from modelyard.core.format import check_format
from modelyard.core.spec import Tensors, TensorSpec, datatype_of

FORMAT = 1
"""Version of `answers.json`; raised when an old reader would misread a new file."""

_ROWS_MAX = 100_000


@dataclass(frozen=True, slots=True, eq=False)
class Answers:
    """Inputs and the main output that the model gave: `[N, K]` probabilities or `[N, 1]` predictions.

    >>> rows = Answers({"age": np.array([[41.0]], np.float32)}, np.array([[0.25, 0.75]], np.float32))
    >>> Answers.from_json(rows.to_json()).outputs.tolist()
    [[0.25, 0.75]]
    """

    inputs: Tensors
    outputs: npt.NDArray[Any]

    def __post_init__(self) -> None:
        rows = {array.shape[0] if array.ndim else -1 for array in (*self.inputs.values(), self.outputs)}
        if len(rows) != 1 or self.outputs.ndim != 2 or not self.inputs:
            raise ReleaseError(
                "the kept answers do not fit together",
                value=[array.shape for array in (*self.inputs.values(), self.outputs)],
                rule="inputs [N, ...] and outputs [N, K], N the same",
            )

    @property
    def rows(self) -> int:
        """How many rows are kept."""
        return int(self.outputs.shape[0])

    def to_json(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "inputs": {name: _write(array) for name, array in sorted(self.inputs.items())},
            "outputs": _write(self.outputs),
        }

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> Answers:
        """The rows that `to_json` wrote, bit for bit; raises `ReleaseError` for anything else."""
        check_format(value.get("format"), FORMAT, "answers.json", ReleaseError)
        try:
            inputs = {str(name): _read(item) for name, item in value["inputs"].items()}
            return Answers(inputs, _read(value["outputs"]))
        except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
            raise ReleaseError("answers.json is not complete", value=str(error)) from error


def _write(array: npt.NDArray[Any]) -> dict[str, Any]:
    datatype = datatype_of(array.dtype)
    flat = array.reshape(-1).tolist()
    data = [str(item) for item in flat] if datatype == "BYTES" else finite(flat)
    return {"datatype": datatype, "shape": list(array.shape), "data": data}


def _read(value: Mapping[str, Any]) -> npt.NDArray[Any]:
    spec = TensorSpec("", str(value["datatype"]), tuple(int(size) for size in value["shape"]))
    data = value["data"]
    # Against shapes such as [0, 10**18], which numpy would take a while over.
    if (
        not spec.shape
        or min(spec.shape) < 1
        or spec.shape[0] > _ROWS_MAX
        or math.prod(spec.shape) != len(data)
    ):
        raise ValueError(f"{len(data)} values do not fill the shape {list(spec.shape)}")
    if spec.datatype == "BYTES":
        array = np.empty(len(data), dtype=object)
        array[:] = [str(item) for item in data]
    elif spec.datatype.startswith("FP"):
        array = np.array([float(item) for item in data], dtype=spec.dtype)
    else:
        array = np.array(data, dtype=spec.dtype)
    return array.reshape(spec.shape)
