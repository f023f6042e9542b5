"""The ordinary request of the Open Inference Protocol, read and written without a Python object a number.

An ordinary body is `{"inputs": [{name, shape, datatype, data}, ...]}`, maybe with an `id`: flat lists of
numbers, no parameters, nothing twice. Or it is a head with `binary_data_size` for `data`, maybe with a
timeout, and the tensors behind it. Whatever else it is, `PlainReader` says `None` and the careful codec
reads it or refuses it. simdjson puts the numbers straight into an array; without it, orjson does the work
by way of lists.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import Any

import msgspec
import numpy as np
import orjson

from modelyard.core.errors import RequestError
from modelyard.core.spec import Tensors, TensorSpec
from modelyard.serve.answered import Answered
from modelyard.serve.codec.elements import check_shape, from_bytes
from modelyard.serve.codec.inference import MAX_ID, Asked, Wanted, read_timeout

try:
    import simdjson
except ImportError:  # an accelerator: what it reads, the careful codec reads too.
    simdjson = None  # type: ignore[assignment,unused-ignore]

_KINDS = {"FP32": "d", "FP64": "d", "INT64": "i"}
_FLOATS = {"FP32": "f", "FP64": "d"}
_SMALL = 4_096
"""Bytes up to which numbers by way of a list are as fast as straight into an array."""


class _Tensor(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    name: str
    shape: list[int]
    datatype: str
    data: list[float]


class _Head(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    inputs: list[_Tensor]
    id: str = ""


class _Size(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    binary_data_size: int


class _RawTensor(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    name: str
    shape: list[int]
    datatype: str
    parameters: _Size


class _AsRaw(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    binary_data: bool


class _RawOutput(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    name: str
    parameters: _AsRaw


class _Options(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    binary_data_output: bool | None = None
    timeout: int | None = None


class _RawHead(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    inputs: list[_RawTensor]
    id: str = ""
    parameters: _Options | None = None
    outputs: list[_RawOutput] | None = None

    def keys(self) -> int:
        """How many keys a text has that says this, each once."""
        count = 1 + 5 * len(self.inputs) + bool(self.id)
        if self.parameters is not None:
            given = (self.parameters.binary_data_output, self.parameters.timeout)
            count += 1 + sum(value is not None for value in given)
        return count if self.outputs is None else count + 1 + 3 * len(self.outputs)


_SMALL_HEAD = msgspec.json.Decoder(_Head)
_RAW_HEAD = msgspec.json.Decoder(_RawHead)


@lru_cache(256)
def _packer(kind: str, count: int) -> struct.Struct:
    return struct.Struct(f"={count}{kind}")


def _exactly(body: bytes, byte: bytes, count: int) -> bool:
    """Whether a byte is there so many times; in a long text a tenth of the time of counting."""
    at = -1
    for _ in range(count):
        at = body.find(byte, at + 1)
        if at < 0:
            return False
    return body.find(byte, at + 1) < 0


class PlainReader:
    """Reads ordinary bodies, one at a time; `elements` and `rows` bound a tensor and a request."""

    def __init__(self, *, elements: int, rows: int) -> None:
        self._elements = elements
        self._rows = rows
        self._parser: Any = None if simdjson is None else simdjson.Parser()

    def read(self, body: bytes) -> Asked | None:
        """The request, or `None` when it wants a closer look."""
        try:
            if len(body) <= _SMALL:
                return self._read_small(body)
            return None if self._parser is None else self._read(body)
        except (ValueError, KeyError, TypeError, AttributeError, ArithmeticError, struct.error):
            return None
        except RuntimeError:  # somebody still holds a part of an earlier document.
            self._parser = simdjson.Parser()
            return None

    def read_raw(self, body: bytes, length: str) -> Asked | None:
        """As `read`, of a body whose tensors lie behind a head of that length, as a client has written it.

        `outputs` of what is returned are all those asked for as raw bytes, `None` where none are named.
        """
        try:
            return self._read_raw(body, int(length)) if length.isascii() and length.isdigit() else None
        except (ValueError, KeyError, RequestError):
            return None

    def _read_raw(self, body: bytes, at: int) -> Asked | None:
        if not 0 < at <= min(len(body), _SMALL):
            return None
        text = body[:at]
        head = _RAW_HEAD.decode(text)
        # As many colons as keys: none is there twice, and no text holds one.
        if text.count(b":") != head.keys() or len(head.id) > MAX_ID:
            return None
        inputs = self._raw_inputs(head.inputs, body, at)
        if inputs is None:
            return None
        timeout, binary, wanted = None, False, None
        if head.parameters is not None:
            binary = bool(head.parameters.binary_data_output)
            timeout = read_timeout(head.parameters.timeout)
        if head.outputs is not None:
            names = {output.name: None for output in head.outputs if output.parameters.binary_data}
            if not names or len(names) != len(head.outputs):
                return None
            binary, wanted = True, tuple(Wanted(name, True) for name in names)
        items = len(next(iter(inputs.values())))
        return Asked(head.id, inputs, items, wanted, binary, head.id, timeout)

    def _raw_inputs(self, tensors: list[_RawTensor], body: bytes, at: int) -> Tensors | None:
        """The tensors from there on to the end of the body, all of as many items."""
        inputs: Tensors = {}
        view = memoryview(body)
        for tensor in tensors:
            if tensor.datatype == "BYTES" or not tensor.name or tensor.name in inputs:
                return None
            shape, count = check_shape(tensor.shape, self._elements, "")
            if not 1 <= shape[0] <= self._rows or shape[0] != tensors[0].shape[0]:
                return None
            end = at + tensor.parameters.binary_data_size
            inputs[tensor.name] = from_bytes(view[at:end], tensor.datatype, shape, count, "")
            at = end
        return inputs if inputs and at == len(body) else None

    def _read_small(self, body: bytes) -> Asked | None:
        head = _SMALL_HEAD.decode(body)
        identity = head.id
        # As many colons as keys: none is there twice, and no text holds one.
        if body.count(b":") != 4 * len(head.inputs) + (2 if identity else 1) or len(identity) > MAX_ID:
            return None
        inputs: Tensors = {}
        items = -1
        for tensor in head.inputs:
            shape, name = tensor.shape, tensor.name
            numbers = tensor.data
            # A fifth of the time of `np.array`, and as exact; what is too large for the type it refuses.
            kind = _FLOATS[tensor.datatype]
            packed = _packer(kind, len(numbers)).pack(*numbers)
            values = np.frombuffer(packed, kind)
            count = 1
            for size in shape:
                if size < 1:
                    return None
                count *= size
            if count != values.size or not shape or not name or name in inputs:
                return None
            if items == -1:
                items = shape[0]
            elif items != shape[0]:
                return None
            inputs[name] = values.reshape(shape)
        if not 1 <= items <= self._rows:
            return None
        return Asked(identity, inputs, items, None, False, identity)

    def _read(self, body: bytes) -> Asked | None:
        head = self._parser.parse(body)
        listed = head["inputs"]
        identity = ""
        if len(head) != 1:
            identity = head["id"]
            if len(head) != 2 or type(identity) is not str or len(identity) > MAX_ID:
                return None
        tensors = len(listed)
        # One bracket for the inputs, two for each tensor: nothing is nested, and no list hides in a list.
        if not _exactly(body, b"[", 1 + 2 * tensors):
            return None
        inputs: Tensors = {}
        items = -1
        for tensor in listed:
            name, datatype = tensor["name"], tensor["datatype"]
            shape = tensor["shape"].as_list()
            if len(tensor) != 4 or name in inputs or not name:
                return None
            values = self._values(tensor["data"].as_buffer(of_type=_KINDS[datatype]), datatype, shape)
            if values is None or items not in (-1, len(values)):
                return None
            inputs[name] = values
            items = len(values)
        if not 1 <= items <= self._rows:
            return None
        return Asked(identity, inputs, items, None, False, identity)

    def _values(self, buffer: Any, datatype: str, shape: list[Any]) -> np.ndarray | None:
        count = 1
        for size in shape:
            if type(size) is not int or size < 1:
                return None
            count *= size
        if not 1 <= len(shape) <= 16 or count > self._elements:
            return None
        if datatype == "INT64":
            values: Any = np.frombuffer(buffer, np.int64)
        else:
            values = np.frombuffer(buffer, np.float64)
            if datatype == "FP32":
                with np.errstate(over="raise"):
                    values = values.astype(np.float32)
        if values.size != count:
            return None
        result: np.ndarray = values.reshape(shape)
        return result


class PlainWriter:
    """Writes the ordinary answer of one release at one endpoint: all outputs, as JSON."""

    def __init__(self, endpoint: str, version: str, outputs: tuple[TensorSpec, ...]) -> None:
        facts = {"model_name": endpoint, "model_version": version}
        self._head = orjson.dumps(facts)[:-1] + b',"id":'
        self._outputs: list[tuple[str, bytes, bytes]] | None = []
        for spec in outputs:
            if spec.datatype not in ("FP32", "FP64") or len(spec.shape) != 2 or spec.shape[1] < 1:
                self._outputs = None
                return
            described = orjson.dumps({"name": spec.name, "datatype": spec.datatype})[:-1] + b',"shape":['
            self._outputs.append((spec.name, described, b",%d]" % spec.shape[1]))
        self.names = tuple(spec.name for spec in outputs)
        """Of the outputs."""

    @property
    def able(self) -> bool:
        """Whether the outputs are all of floats `[N, K]`; of others the careful codec writes the answer."""
        return self._outputs is not None

    def write(self, identity: str, rows: int, outputs: Answered) -> bytes:
        """The body of an answer in JSON."""
        parts = [self._head, orjson.dumps(identity), b',"outputs":[']
        for name, described, width in self._outputs or ():
            parts += (described, b"%d" % rows, width, b',"data":', outputs.text(name, rows), b"},")
        parts[-1] = b"}]}"
        return b"".join(parts)

    def write_raw(self, identity: str, rows: int, outputs: Answered) -> tuple[bytes, int]:
        """The body of an answer in raw bytes, and the length of the head before them."""
        parts = [self._head, orjson.dumps(identity), b',"outputs":[']
        raw = []
        for name, described, width in self._outputs or ():
            data = np.ascontiguousarray(outputs[name]).tobytes()
            raw.append(data)
            size = b',"parameters":{"binary_data_size":%d}' % len(data)
            parts += (described, b"%d" % rows, width, size, b"},")
        parts[-1] = b"}]}"
        head = b"".join(parts)
        return b"".join((head, *raw)), len(head)
