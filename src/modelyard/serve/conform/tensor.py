"""Tensors for requests: valid values from metadata, seeded; JSON values and raw bytes of an array."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from modelyard.core.errors import RequestError
from modelyard.core.spec import DATATYPES, numpy_type

Array: TypeAlias = npt.NDArray[Any]
MAX_ELEMENTS = 1 << 22
"""Elements of one tensor that the kit is willing to make up."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """A named array; BYTES hold `str` objects."""

    name: str
    datatype: str
    values: Array

    def items(self, start: int, end: int) -> Tensor:
        """The items from `start` to `end` along the first dimension."""
        return replace(self, values=self.values[start:end])


Sample: TypeAlias = tuple[Tensor, ...]
"""One value for each input of a model, sharing the first dimension where there is a batch."""


def made_up(name: str, datatype: str, shape: tuple[int, ...], *, items: int, seed: int) -> Tensor:
    """A valid tensor: `items` where the first dimension varies, 1 where another one does.

    Floats are uniform in [0, 1), integers in 0..4 (an index into almost any table), texts one word. Raises
    `ValueError` for an unknown datatype and for a shape that is too large to make up.
    """
    if datatype not in DATATYPES:
        raise ValueError(f"{datatype!r} is no datatype of the protocol")
    whole = tuple((items if place == 0 else 1) if size == -1 else size for place, size in enumerate(shape))
    if any(size < 0 for size in whole) or math.prod(whole) > MAX_ELEMENTS:
        raise ValueError(f"the shape {list(shape)} cannot be made up")
    rng = np.random.default_rng([seed, *name.encode()])
    if datatype == "BYTES":
        values: Array = np.empty(whole, dtype=object)
        values.ravel()[:] = ["".join(rng.choice(list("abcdefgh"), 5)) for _ in range(values.size)]
    elif datatype == "BOOL":
        values = rng.random(whole) < 0.5
    elif datatype.startswith("FP"):
        values = rng.random(whole).astype(numpy_type(datatype))
    else:
        values = rng.integers(0, 5, whole).astype(numpy_type(datatype))
    return Tensor(name, datatype, values)


def json_values(values: Array, *, nested: bool = False) -> Any:
    """What stands under `data`; floats that JSON does not know become `null`.

    >>> json_values(np.array([[1, 2]]), nested=True), json_values(np.array([[1, 2]]))
    ([[1, 2]], [1, 2])
    """
    shaped = values if nested else values.reshape(-1)
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        holes = shaped.astype(object)
        holes[~np.isfinite(shaped.astype(np.float64))] = None
        return holes.tolist()
    return shaped.tolist()


def raw_bytes(tensor: Tensor) -> bytes:
    """Little-endian elements; BYTES each behind its length in four bytes."""
    if tensor.datatype == "BYTES":
        texts = [item if isinstance(item, bytes) else str(item).encode() for item in tensor.values.ravel()]
        return b"".join(struct.pack("<I", len(text)) + text for text in texts)
    return np.ascontiguousarray(tensor.values).astype(numpy_type(tensor.datatype).newbyteorder("<")).tobytes()


def from_raw(data: bytes, datatype: str, shape: tuple[int, ...]) -> Array:
    """The array of raw bytes; raises `ValueError` when they do not fill the shape."""
    count = math.prod(shape)
    if datatype != "BYTES":
        return np.frombuffer(data, numpy_type(datatype)).reshape(shape)
    values: Array = np.empty(count, dtype=object)
    at = 0
    for index in range(count):
        (size,) = struct.unpack_from("<I", data, at) if at + 4 <= len(data) else (len(data) + 1,)
        if at + 4 + size > len(data):
            raise ValueError("the texts are cut short")
        values[index] = data[at + 4 : at + 4 + size].decode("utf-8", "replace")
        at += 4 + size
    if at != len(data):
        raise ValueError(f"{len(data) - at} bytes are left over")
    return values.reshape(shape)


def from_json(data: object, datatype: str, shape: tuple[int, ...]) -> Array:
    """The array of JSON values, flat or nested; raises `ValueError` when they do not fill the shape."""
    if datatype not in DATATYPES:
        raise ValueError(f"{datatype!r} is no datatype of the protocol")
    if not isinstance(data, list):
        raise ValueError("the data is no list")
    flat: list[Any] = data
    while flat and all(isinstance(item, list) for item in flat):
        flat = [value for item in flat for value in item]
    if len(flat) != math.prod(shape):
        raise ValueError(f"{len(flat)} values for the shape {list(shape)}")
    if datatype == "BYTES":
        values: Array = np.empty(len(flat), dtype=object)
        values[:] = [str(item) for item in flat]
        return values.reshape(shape)
    if datatype.startswith("FP"):
        flat = [math.nan if item is None else item for item in flat]
    try:
        return np.array(flat, dtype=numpy_type(datatype)).reshape(shape)
    except (TypeError, OverflowError) as error:
        raise ValueError(f"the values are not {datatype}: {error}") from None


def read_sample(value: object) -> Sample:
    """The inputs of an inference request's JSON; raises `RequestError` naming what is wrong."""
    listed = value.get("inputs") if isinstance(value, dict) else None
    if not isinstance(listed, list) or not listed:
        raise RequestError("the sample holds no inputs", rule='{"inputs": [{name, datatype, shape, data}]}')
    made = []
    for index, item in enumerate(listed):
        try:
            datatype, shape = str(item["datatype"]), tuple(int(size) for size in item["shape"])
            made.append(Tensor(str(item["name"]), datatype, from_json(item["data"], datatype, shape)))
        except (KeyError, TypeError, ValueError) as error:
            raise RequestError("an input is wrong", where=f"inputs[{index}]", value=str(error)) from None
    return tuple(made)


def same(left: Array, right: Array, datatype: str) -> bool:
    """Whether two answers agree: equal, or for floats within what another order of sums may change."""
    if left.shape != right.shape:
        return False
    if not datatype.startswith("FP"):
        return bool(np.array_equal(left, right))
    close = {"FP16": 1e-2, "FP32": 1e-4, "FP64": 1e-7}.get(datatype, 1e-2)
    pair = left.astype(np.float64), right.astype(np.float64)
    return bool(np.allclose(*pair, rtol=close, atol=close / 10, equal_nan=True))
