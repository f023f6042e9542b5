"""The elements of one tensor: from JSON values or raw bytes to an array, within bounds, and back."""

from __future__ import annotations

import struct
from array import array
from itertools import chain
from math import nan
from typing import Any

import numpy as np
import numpy.typing as npt

from modelyard.core.errors import RequestError
from modelyard.core.names import did_you_mean
from modelyard.core.spec import DATATYPES, numpy_type

Array = npt.NDArray[Any]

MAX_RANK = 16

# `array` converts a list faster than numpy does, and refuses text, which numpy would parse.
_CODES = {"INT8": "b", "UINT8": "B", "INT16": "h", "UINT16": "H", "INT32": "i", "UINT32": "I", "INT64": "q",
          "UINT64": "Q", "FP16": "f", "FP32": "f", "FP64": "d"}  # fmt: skip
_FLOATS = ("FP16", "FP32", "FP64")
_SIZES = {name: numpy_type(name).itemsize for name in DATATYPES if name != "BYTES"}
_SCALARS: tuple[type, ...] = (float, int, bool, str, type(None))
_LENGTH = struct.Struct("<I")


def check_datatype(datatype: object, where: str) -> str:
    """The datatype if the protocol knows it; raises `RequestError` with the nearest one."""
    if type(datatype) is str and datatype in DATATYPES:
        return datatype
    raise RequestError(
        "the datatype is not known" if isinstance(datatype, str) else "the datatype is missing or no text",
        value=datatype,
        where=f"{where}.datatype",
        fix=did_you_mean(datatype if isinstance(datatype, str) else "", DATATYPES),
    )


def check_shape(shape: object, limit: int, where: str) -> tuple[tuple[int, ...], int]:
    """The shape as a tuple and its number of elements; refused before any memory is taken for them."""
    if type(shape) is not list or not 1 <= len(shape) <= MAX_RANK:
        raise RequestError("the shape is wrong", value=shape, where=f"{where}.shape",
                           rule=f"a list of 1 to {MAX_RANK} whole numbers")  # fmt: skip
    count = 1
    for size in shape:
        if type(size) is not int or size < 0:
            raise RequestError("the shape is wrong", value=shape, where=f"{where}.shape",
                               rule="whole numbers, none negative")  # fmt: skip
        count *= size
    if count > limit or max(shape) > limit:
        raise RequestError("the tensor is too large", value=shape, status=413, where=f"{where}.shape",
                           rule=f"at most {limit} elements")  # fmt: skip
    return tuple(shape), count


def from_values(data: object, datatype: str, shape: tuple[int, ...], count: int, where: str) -> Array:
    """An array of JSON values, flat or nested as the shape says; `null` among floats is missing (NaN).

    >>> from_values([1, 2.5, None], "FP32", (3, 1), 3, "x").ravel().tolist()
    [1.0, 2.5, nan]
    """
    if type(data) is not list:
        raise RequestError("the data is missing or no list", value=data, where=f"{where}.data")
    flat = _flatten(data, shape, where) if data and type(data[0]) is list else data
    if len(flat) != count:
        raise RequestError("the data does not fill the shape", value=len(flat), where=f"{where}.data",
                           rule=f"{count} values for the shape {list(shape)}")  # fmt: skip
    if datatype == "BYTES":
        return _texts(flat, where).reshape(shape)
    if datatype == "BOOL":
        return _booleans(flat, where).reshape(shape)
    try:
        values = array(_CODES[datatype], flat)
    except (TypeError, OverflowError):
        values = _slowly(flat, datatype, where)
    result: Array = np.frombuffer(values, dtype=values.typecode).reshape(shape)
    return result.astype(np.float16) if datatype == "FP16" else result


def plain_numbers(data: object, datatype: object, shape: object) -> Array | None:
    """The array of an ordinary tensor of numbers, in a flat list; `None` for all that needs a closer look.

    This is the path of nearly every request; whatever it does not take, the careful path reads or refuses.
    """
    code = _CODES.get(datatype) if type(datatype) is str else None
    if code is None or datatype == "FP16" or type(data) is not list or type(shape) is not list:
        return None
    count = 1
    for size in shape:
        if type(size) is not int or size < 1:
            return None
        count *= size
    if count != len(data) or not 1 <= len(shape) <= MAX_RANK:
        return None
    try:
        values = array(code, data)
    except (TypeError, OverflowError):
        return None
    result: Array = np.frombuffer(values, code).reshape(shape)
    return result


def from_bytes(data: memoryview, datatype: str, shape: tuple[int, ...], count: int, where: str) -> Array:
    """An array of raw little-endian elements; BYTES are texts, each behind its length in four bytes."""
    if datatype == "BYTES":
        return _prefixed(data, count, where).reshape(shape)
    need = count * _SIZES[datatype]
    if len(data) != need:
        raise RequestError("the binary data has the wrong length", value=len(data), where=where,
                           rule=f"{need} bytes for {datatype} {list(shape)}")  # fmt: skip
    if datatype == "BOOL":
        truths: Array = np.frombuffer(data, np.uint8) != 0
        return truths.reshape(shape)
    result: Array = np.frombuffer(data, numpy_type(datatype)).reshape(shape)
    # The runtime's vector code wants whole elements; a part of a body may begin anywhere.
    return result if result.flags.aligned else result.copy()


def to_values(values: Array) -> Any:
    """What the JSON encoder writes for an array, flat."""
    if values.dtype == object:
        return [str(item) for item in values.ravel()]
    if values.dtype == np.float16:
        values = values.astype(np.float32)
    return np.ascontiguousarray(values).reshape(-1)


def to_bytes(values: Array) -> bytes:
    """Raw little-endian elements, as `from_bytes` reads them.

    >>> to_bytes(np.array(["a", "bc"], dtype=object))
    b'\\x01\\x00\\x00\\x00a\\x02\\x00\\x00\\x00bc'
    """
    if values.dtype != object:
        return np.ascontiguousarray(values).tobytes()
    texts = [str(item).encode() for item in values.ravel()]
    return b"".join(chain.from_iterable((_LENGTH.pack(len(text)), text) for text in texts))


def _flatten(data: list[Any], shape: tuple[int, ...], where: str) -> list[Any]:
    if len(data) != shape[0]:
        raise _ragged(shape, where)
    for size in shape[1:]:
        for item in data:
            if type(item) is not list or len(item) != size:
                raise _ragged(shape, where)
        data = list(chain.from_iterable(data))
    return data


def _ragged(shape: tuple[int, ...], where: str) -> RequestError:
    return RequestError("the lists are not nested as the shape says", where=f"{where}.data",
                        rule=f"flat, or nested as {list(shape)}")  # fmt: skip


def _texts(flat: list[Any], where: str) -> Array:
    result = np.empty(len(flat), dtype=object)
    for index, item in enumerate(flat):
        if type(item) is str:
            result[index] = item
        elif item is None:
            result[index] = ""
        else:
            raise _element(flat, index, "text", where)
    return result


def _booleans(flat: list[Any], where: str) -> Array:
    for index, item in enumerate(flat):
        if item is not True and item is not False:
            raise _element(flat, index, "true or false", where)
    return np.array(flat, dtype=np.bool_)


def _slowly(flat: list[Any], datatype: str, where: str) -> array[Any]:
    """Converts value by value, to allow `null` and to name the first one that is wrong."""
    floats = datatype in _FLOATS
    result: array[Any] = array(_CODES[datatype])
    for index, item in enumerate(flat):
        try:
            result.append(nan if item is None and floats else item)
        except (TypeError, OverflowError):
            rule = (
                "a number, or null where it is missing" if floats else f"a whole number that {datatype} holds"
            )
            raise _element(flat, index, rule, where) from None
    return result


def _element(flat: list[Any], index: int, rule: str, where: str) -> RequestError:
    item = flat[index]
    shown = item if isinstance(item, _SCALARS) else type(item).__name__
    return RequestError("a value is wrong", value=shown, where=f"{where}.data[{index}]", rule=rule)


def _prefixed(data: memoryview, count: int, where: str) -> Array:
    if count * _LENGTH.size > len(data):
        raise RequestError("the binary texts are cut short", value=len(data), where=where,
                           rule=f"{count} texts, each behind its length in 4 bytes")  # fmt: skip
    result = np.empty(count, dtype=object)
    at, end = 0, len(data)
    for index in range(count):
        if end - at < _LENGTH.size:
            raise RequestError("the binary texts are cut short", value=index, where=where,
                               rule=f"{count} texts, each behind its length in 4 bytes")  # fmt: skip
        (size,) = _LENGTH.unpack_from(data, at)
        at += _LENGTH.size
        if size > end - at:
            raise RequestError(f"text {index} is longer than the data", value=size, where=where,
                               rule=f"at most the {end - at} bytes that are left")  # fmt: skip
        try:
            result[index] = str(data[at : at + size], "utf-8")
        except UnicodeDecodeError:
            raise RequestError(
                f"text {index} is not UTF-8", where=where, rule="BYTES are texts in UTF-8"
            ) from None
        at += size
    if at != end:
        raise RequestError("bytes are left over behind the texts", value=end - at, where=where,
                           rule=f"exactly {count} texts")  # fmt: skip
    return result
