"""Signatures: the named tensors that go into a model and come out of it.

Every model in Modelyard keeps one rule: **its inputs are the feature columns of the data contract, by
name.** A scalar column is a tensor `[-1, 1]`; a column that holds a tensor of shape `S` is `[-1, *S]`.
Outputs are `probabilities` (`float32 [-1, K]`) for classification and `prediction` (`float32 [-1, 1]`)
for regression. The first dimension is the batch and is always dynamic.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Tensors: TypeAlias = dict[str, npt.NDArray[Any]]
"""Named arrays that share their first dimension; text is an object array of `str`."""

DYNAMIC = -1

_NUMPY: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype(np.bool_),
    "UINT8": np.dtype(np.uint8),
    "UINT16": np.dtype(np.uint16),
    "UINT32": np.dtype(np.uint32),
    "UINT64": np.dtype(np.uint64),
    "INT8": np.dtype(np.int8),
    "INT16": np.dtype(np.int16),
    "INT32": np.dtype(np.int32),
    "INT64": np.dtype(np.int64),
    "FP16": np.dtype(np.float16),
    "FP32": np.dtype(np.float32),
    "FP64": np.dtype(np.float64),
    "BYTES": np.dtype(object),
}
DATATYPES = tuple(_NUMPY)
"""The datatypes of the Open Inference Protocol v2 that numpy can hold; text is BYTES."""


def numpy_type(datatype: str) -> np.dtype[Any]:
    """The numpy type of an Open Inference Protocol datatype; `KeyError` when there is none."""
    return _NUMPY[datatype]


def datatype_of(dtype: np.dtype[Any]) -> str:
    """The Open Inference Protocol datatype of a numpy type; text and object are BYTES.

    >>> datatype_of(np.dtype("float32")), datatype_of(np.dtype("<U3"))
    ('FP32', 'BYTES')
    """
    if dtype.kind in "OUS":
        return "BYTES"
    for name, known in _NUMPY.items():
        if known == dtype:
            return name
    raise ValueError(f"no tensor datatype holds numpy's {dtype}")


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One named tensor: its Open Inference Protocol datatype and shape, `-1` where dynamic."""

    name: str
    datatype: str
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        if self.datatype not in _NUMPY:
            raise ValueError(f"{self.datatype!r} is not one of {', '.join(DATATYPES)}")

    @property
    def dtype(self) -> np.dtype[Any]:
        """The numpy type of the tensor."""
        return _NUMPY[self.datatype]

    def accepts(self, shape: tuple[int, ...]) -> bool:
        """Whether an array of this shape fits: same rank, equal wherever the dimension is fixed."""
        return len(shape) == len(self.shape) and all(
            want in (DYNAMIC, got) for want, got in zip(self.shape, shape, strict=True)
        )

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, "datatype": self.datatype, "shape": list(self.shape)}

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> TensorSpec:
        return TensorSpec(
            str(value["name"]), str(value["datatype"]), tuple(int(size) for size in value["shape"])
        )


@dataclass(frozen=True, slots=True)
class Signature:
    """What goes into a model and what comes out, in order."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    def __post_init__(self) -> None:
        for side in (self.inputs, self.outputs):
            names = [spec.name for spec in side]
            if len(set(names)) != len(names):
                raise ValueError(f"tensor names must differ: {names}")

    def input(self, name: str) -> TensorSpec:
        """The input of that name; `KeyError` when there is none."""
        return next((spec for spec in self.inputs if spec.name == name), None) or _missing(name)

    def output(self, name: str) -> TensorSpec:
        """The output of that name; `KeyError` when there is none."""
        return next((spec for spec in self.outputs if spec.name == name), None) or _missing(name)

    def to_json(self) -> dict[str, Any]:
        return {
            "inputs": [spec.to_json() for spec in self.inputs],
            "outputs": [spec.to_json() for spec in self.outputs],
        }

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> Signature:
        return Signature(
            tuple(TensorSpec.from_json(item) for item in value["inputs"]),
            tuple(TensorSpec.from_json(item) for item in value["outputs"]),
        )


def _missing(name: str) -> TensorSpec:
    raise KeyError(name)
