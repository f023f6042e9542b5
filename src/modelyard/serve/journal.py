"""Journals of the prediction log: what many requests left behind, written as it lies in memory.

A journal costs a quarter of a table. It is an intermediate form: who has time turns it into Parquet.

    magic     8 bytes   b"MYJRNL" and the version, two digits
    frame     the `Facts` of all that follows
    frame ..  a `_Meta` and, behind it, the arrays that it tells of
    frame     empty: the journal is whole

A frame is the length and the CRC-32 of its message (uint32 each), the message (MessagePack), and the arrays;
each part begins at a multiple of 8 bytes. Numbers are little-endian.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from math import prod
from pathlib import Path
from struct import Struct
from types import TracebackType
from typing import Any, BinaryIO
from zlib import crc32

import msgspec
import numpy as np
import numpy.typing as npt

from modelyard.core.digest import Digest
from modelyard.core.spec import Tensors, datatype_of, numpy_type
from modelyard.data.contract import Contract
from modelyard.serve.piece import Piece
from modelyard.serve.record import Arm, Outcome, ReleaseFacts

JOURNAL = ".journal"
"""Suffix of segments that were written in a hurry."""
FORMAT = 1
MAGIC = b"MYJRNL%02d" % FORMAT
_WORD = 8
_HEAD = Struct("<II")


class Facts(msgspec.Struct, frozen=True):
    """What all pieces of a journal share."""

    endpoint: str
    digest: str
    version: str
    labels: tuple[str, ...]
    contract: dict[str, Any]

    def release(self) -> ReleaseFacts:
        """The release, as far as the log knows it; raises `ContractError`."""
        return _Release(Digest(self.digest), self.version, self.labels, Contract.from_json(self.contract))


class _Release(msgspec.Struct, frozen=True):
    digest: Digest
    version: str
    labels: tuple[str, ...]
    contract: Contract


class _Array(msgspec.Struct, array_like=True):
    name: str
    datatype: str
    shape: tuple[int, ...]
    texts: list[str] | None = None
    """The elements of a BYTES array; others lie behind the message."""


class _Meta(msgspec.Struct, array_like=True):
    arm: Arm
    outcome: Outcome
    ids: list[str]
    counts: list[int]
    broken: list[list[str]]
    moments: tuple[_Array, _Array]
    inputs: list[_Array]
    outputs: list[_Array]


_ENCODE = msgspec.msgpack.Encoder().encode
_FACTS = msgspec.msgpack.Decoder(Facts)
_METAS = msgspec.msgpack.Decoder(_Meta)


class Journal:
    """Writes a journal: there, whole, when the `with` block has ended.

    If that failed, or no piece was added, it is not there at all.
    """

    def __init__(self, path: Path, endpoint: str, release: ReleaseFacts) -> None:
        self._path = path
        self._part = path.with_name(f".{path.name}.{os.getpid()}.part")
        self._facts = Facts(
            endpoint, str(release.digest), release.version, tuple(release.labels), release.contract.to_json()
        )
        self.size = 0
        """Bytes written."""
        self._pieces = 0

    def __enter__(self) -> Journal:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._file: BinaryIO = self._part.open("wb")
        self.size = self._file.write(MAGIC)
        self._frame(_ENCODE(self._facts), [])
        return self

    def add(self, piece: Piece) -> None:
        """Writes a piece. Raises `OSError`, and `TypeError` or `ValueError` for what no journal can hold."""
        arrays: list[npt.NDArray[Any]] = []
        meta = _Meta(
            piece.arm,
            piece.outcome,
            piece.ids,
            piece.counts,
            piece.broken,
            (_told("times", piece.times, arrays), _told("latencies", piece.latencies, arrays)),
            [_told(name, values, arrays) for name, values in piece.inputs.items()],
            [_told(name, values, arrays) for name, values in piece.outputs.items()],
        )
        self._frame(_ENCODE(meta), arrays)
        self._pieces += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        whole = kind is None and self._pieces > 0
        try:
            if whole:
                self._frame(b"", [])
            self._file.close()
            if whole:
                self._part.replace(self._path)
        finally:
            self._file.close()
            self._part.unlink(missing_ok=True)

    def _frame(self, message: bytes, arrays: list[npt.NDArray[Any]]) -> None:
        self._write(_HEAD.pack(len(message), crc32(message)))
        self._write(message)
        for values in arrays:
            self._write(values.data.cast("B") if values.size else b"")

    def _write(self, data: bytes | memoryview) -> None:
        self.size += self._file.write(data)
        rest = -len(data) % _WORD
        if rest:
            self.size += self._file.write(bytes(rest))


def read_journal(path: Path) -> tuple[Facts, Iterator[Piece]]:
    """What a journal tells of, and its pieces one after the other; raises `OSError` where it is damaged.

    Sizes are checked against the file's, and no object is made by name.
    """
    data = path.read_bytes()
    if not data.startswith(MAGIC):
        raise OSError(f"{path.name} is no journal of this version")
    reader = _Reader(path.name, data, len(MAGIC))
    facts = reader.decoded(_FACTS)
    if facts is None:
        raise OSError(f"{path.name} does not say of what it tells")
    return facts, reader.pieces()


class _Reader:
    def __init__(self, name: str, data: bytes, place: int) -> None:
        self._name = name
        self._data = data
        self._place = place

    def decoded(self, decoder: msgspec.msgpack.Decoder[Any]) -> Any:
        """The next frame's message, `None` where it is empty."""
        length, check = _HEAD.unpack(self._take(_WORD))
        message = self._take(length)
        if crc32(message) != check:
            raise OSError(f"{self._name} is damaged: the checksum of a message is another")
        return decoder.decode(message) if length else None

    def pieces(self) -> Iterator[Piece]:
        while (meta := self.decoded(_METAS)) is not None:
            times, latencies = (self._array(told) for told in meta.moments)
            inputs, outputs = self._tensors(meta.inputs), self._tensors(meta.outputs)
            yield Piece(meta.arm, meta.outcome, meta.ids, meta.counts, times, latencies, inputs, outputs,
                        meta.broken)  # fmt: skip

    def _tensors(self, told: list[_Array]) -> Tensors:
        return {item.name: self._array(item) for item in told}

    def _array(self, told: _Array) -> npt.NDArray[Any]:
        if told.texts is not None:
            values = np.empty(len(told.texts), object)
            values[:] = told.texts
            return values.reshape(told.shape)
        dtype = numpy_type(told.datatype)
        return np.frombuffer(self._take(prod(told.shape) * dtype.itemsize), dtype).reshape(told.shape)

    def _take(self, length: int) -> memoryview:
        end = self._place + length
        if not 0 <= length <= len(self._data) - self._place:
            raise OSError(f"{self._name} is cut short")
        found = memoryview(self._data)[self._place : end]
        self._place = end + -end % _WORD
        return found


def _told(name: str, values: npt.NDArray[Any], arrays: list[npt.NDArray[Any]]) -> _Array:
    """What the message says of an array; its elements go behind the message, or into it if they are texts."""
    datatype = datatype_of(values.dtype)
    if datatype == "BYTES":
        texts = values.reshape(-1).tolist()
        if not all(isinstance(text, str) for text in texts):
            raise TypeError(f"the tensor {name!r} holds something else than texts")
        return _Array(name, datatype, values.shape, texts)
    arrays.append(np.ascontiguousarray(values))
    return _Array(name, datatype, values.shape)
