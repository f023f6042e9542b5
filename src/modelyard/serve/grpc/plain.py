"""The ordinary message, read and written by hand: raw contents, no parameters, a description seen before.

The protobuf library reads a message in a microsecond, but each field that is looked at costs one too. A
client describes its tensors with the same bytes every time: those are understood once.
"""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np

from modelyard.core.require import require
from modelyard.core.spec import DATATYPES, Tensors, datatype_of, numpy_type
from modelyard.serve.codec.elements import MAX_RANK, to_bytes
from modelyard.serve.codec.inference import MAX_ID
from modelyard.serve.grpc.messages import messages

_MOST = 16
_LONGEST = 256
_KEPT = 1_024
_DATATYPES = {numpy_type(name): name for name in DATATYPES}
# Field number times 8 plus 2: bytes, texts and messages, each behind its length.
_MODEL, _VERSION, _ID, _INPUT, _RAW = 0x0A, 0x12, 0x1A, 0x2A, 0x3A


class InferAsked(msgspec.Struct, frozen=True, gc=False):
    """A `ModelInfer` request. `outputs` is empty when all are wanted; `raw` says how the inputs came."""

    model: str
    version: str
    id: str
    key: str
    """What routing sticks to: the request's parameter `key`, else its id."""
    inputs: Tensors
    rows: int
    outputs: tuple[str, ...]
    raw: bool
    timeout: float | None
    """Seconds after which the client wants no answer any more: the parameter `timeout`, there in us."""


class _Described(msgspec.Struct, frozen=True, gc=False):
    """A tensor whose description is known to be right."""

    name: str
    dtype: Any
    shape: tuple[int, ...]
    count: int
    bytes: int


class PlainReader:
    """Reads the messages of nearly every request; the others, right or wrong, are left to `read_infer`."""

    def __init__(self, *, elements: int, rows: int) -> None:
        self._elements = elements
        self._rows = rows
        self._known: dict[bytes, _Described | None] = {}

    def read(self, data: bytes) -> InferAsked | None:
        """The request, `None` when the message wants a closer look."""
        try:
            return self._read(data)
        except (IndexError, UnicodeDecodeError):
            return None

    def _read(self, data: bytes) -> InferAsked | None:
        at, end = 0, len(data)
        model = version = identity = b""
        described: list[bytes] = []
        places: list[tuple[int, int]] = []
        while at < end:
            tag, size = data[at], data[at + 1]
            at += 2
            shift = 7
            while size >> shift:
                size += (data[at] - 1) << shift
                at += 1
                shift += 7
                if shift > 28:
                    return None
            stop = at + size
            if stop > end:
                return None
            if tag == _RAW:
                places.append((at, size))
            elif tag == _INPUT and size <= _LONGEST:
                described.append(data[at:stop])
            elif tag == _MODEL:
                model = data[at:stop]
            elif tag == _ID:
                identity = data[at:stop]
            elif tag == _VERSION:
                version = data[at:stop]
            else:
                return None
            at = stop
        if not model or len(identity) > MAX_ID or not 1 <= len(described) == len(places) <= _MOST:
            return None
        return self._made(data, model, version, identity, described, places)

    def _made(
        self,
        data: bytes,
        model: bytes,
        version: bytes,
        identity: bytes,
        described: list[bytes],
        places: list[tuple[int, int]],
    ) -> InferAsked | None:
        inputs: Tensors = {}
        items = -1
        for text, (at, size) in zip(described, places, strict=True):
            tensor = self._known.get(text)
            if tensor is None:
                tensor = self._learn(text)
                if tensor is None:
                    return None
            rows = tensor.shape[0]
            if size != tensor.bytes or tensor.name in inputs or items not in (-1, rows):
                return None
            items = rows
            values = np.frombuffer(data, tensor.dtype, tensor.count, at).reshape(tensor.shape)
            # The runtime's vector code wants whole elements; a part of a message may begin anywhere.
            inputs[tensor.name] = values if values.flags.aligned else values.copy()
        known = identity.decode()
        return InferAsked(model.decode(), version.decode(), known, known, inputs, items, (), True, None)

    def _learn(self, text: bytes) -> _Described | None:
        """Understands the bytes of an `InferTensor`; `None` for what `read_infer` has to look at."""
        try:
            tensor = messages()["InferTensor"].FromString(text)
        except require("google.protobuf.message", extra="grpc").DecodeError:
            return None
        if tensor.parameters or tensor.HasField("contents") or not tensor.name:
            return None
        if tensor.datatype not in DATATYPES or tensor.datatype in ("BYTES", "BOOL"):
            return None
        shape = tuple(tensor.shape)
        count = 1
        for size in shape:
            if size < 1:
                return None
            count *= size
        if not 1 <= len(shape) <= MAX_RANK or count > self._elements or shape[0] > self._rows:
            return None
        if len(self._known) >= _KEPT:
            self._known.clear()
        dtype = numpy_type(tensor.datatype)
        made = self._known[text] = _Described(tensor.name, dtype, shape, count, count * dtype.itemsize)
        return made


class PlainWriter:
    """Writes one release's `ModelInferResponse`s with raw contents."""

    def __init__(self, endpoint: str, version: str) -> None:
        self._head = _text(_MODEL, endpoint.encode()) + _text(_VERSION, version.encode())
        self._known: dict[tuple[str, int, tuple[int, ...]], bytes] = {}

    def write(self, identity: str, outputs: Tensors) -> bytes:
        """The message's bytes."""
        parts = [self._head, _text(_ID, identity.encode()) if identity else b""]
        raws: list[bytes] = []
        for name, values in outputs.items():
            key = (name, values.dtype.num, values.shape)
            described = self._known.get(key)
            if described is None:
                described = self._describe(key, values)
            parts.append(described)
            data = to_bytes(values)
            raws += (b"\x32" + varint(len(data)), data)
        return b"".join((*parts, *raws))

    def _describe(self, key: tuple[str, int, tuple[int, ...]], values: np.ndarray) -> bytes:
        if len(self._known) >= _KEPT:
            self._known.clear()
        datatype = _DATATYPES.get(values.dtype) or datatype_of(values.dtype)
        tensor = messages()["InferTensor"](name=key[0], datatype=datatype, shape=values.shape)
        made = self._known[key] = _text(_INPUT, tensor.SerializeToString())
        return made


def varint(number: int) -> bytes:
    """A number as protobuf writes it, seven bits a byte.

    >>> varint(3), varint(300)
    (b'\\x03', b'\\xac\\x02')
    """
    if number < 128:
        return bytes((number,))
    parts = bytearray()
    while number > 127:
        parts.append(number & 127 | 128)
        number >>= 7
    parts.append(number)
    return bytes(parts)


def _text(tag: int, text: bytes) -> bytes:
    return bytes((tag,)) + varint(len(text)) + text
