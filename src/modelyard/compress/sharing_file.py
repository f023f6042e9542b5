"""The stored form of a graph whose weights share few values: Huffman-coded, restored to the same bytes."""

from __future__ import annotations

import hashlib
import struct
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from modelyard.compress.sharing_huffman import LANE, LONGEST, code_lengths, decode, encode
from modelyard.core.errors import CompressError

Array = npt.NDArray[Any]

FORMAT = 1
"""Raised when a reader of the old number would read a new file wrongly or not at all; old readers stay.

Little-endian. Head: 8 bytes `MAGIC`, u16 format, u64 length and 32 bytes SHA-256 of the original, u32 number
of parts. The parts follow each other and give, in order, the original's bytes. A part: u8 kind, u64 bytes
that it gives, then

- kind 0, literal: u64 length, that many bytes of zlib (RFC 1950);
- kind 1, dense: a *coding* of one symbol an element;
- kind 2, sparse: a *coding* of the elements that are not zero, then u32 number of gaps, 256 code lengths (u8)
  and a *stream* of gaps. A gap of 0 to 254 says how many zeros stand before the next element; 255 stands for
  255 zeros and no element. Zeros at the end are not written.

A *coding*: u8 bytes an element (1, 2, 4 or 8), u16 number of values (1 to 256), the values as unsigned
integers in rising order, their code lengths (u8, 1 to 16), u64 number of symbols, a *stream*. A *stream*: u16
bytes of each lane of 512 symbols, then the lanes, codes canonical, highest bit first."""

MAGIC = b"MYSHARE\0"
LARGEST = 1 << 30
_HEAD = struct.Struct("<8sHQ32sI")
_PART = struct.Struct("<BQ")
_LITERAL, _DENSE, _SPARSE = range(3)
_SMALLEST = 64
_GAP = 255


def pack(onnx: bytes) -> bytes:
    """A graph's bytes in the stored form; `unpack` gives the same bytes again.

    Constants of at most 256 distinct values (clustered, pruned, int8) are coded by Huffman, dense or as gaps
    and values, whichever is shorter (Deep Compression, arXiv:1510.00149, sections 2 and 4); everything else
    is deflated.
    """
    parts: list[bytes] = []
    done = 0
    for raw, width in _constants(onnx):
        place = onnx.find(raw, done)
        coded = _coded(raw, width) if place >= 0 else None
        if coded is not None:
            parts += [_literal(onnx[done:place])] if place > done else []
            parts.append(coded)
            done = place + len(raw)
    if done < len(onnx):
        parts.append(_literal(onnx[done:]))
    head = _HEAD.pack(MAGIC, FORMAT, len(onnx), hashlib.sha256(onnx).digest(), len(parts))
    return head + b"".join(parts)


def unpack(data: bytes, *, largest: int = LARGEST) -> bytes:
    """The original bytes, verified by their digest; they still have to pass `reader.read_model`.

    Every length is checked before anything is made of it: memory stays within a small multiple of what the
    head promises, which is at most `largest` bytes. Raises `CompressError` for whatever is not a whole,
    unchanged file of a known format.
    """
    reader = _Reader(data)
    magic, version, length, digest, count = _HEAD.unpack(reader.take(_HEAD.size))
    if magic != MAGIC:
        raise CompressError("the bytes are no stored model", value=magic, rule="they begin with MYSHARE")
    if version != FORMAT:
        raise CompressError("the stored model has another format", value=version, rule=f"format {FORMAT}")
    if length > largest:
        raise CompressError("the stored model is too large", value=length, rule=f"at most {largest} bytes")
    out = bytearray()
    for _ in range(count):
        kind, size = _PART.unpack(reader.take(_PART.size))
        if size == 0 or size > length - len(out):
            raise _damaged("a part is empty, or larger than what is left")
        try:
            out += _restored(reader, kind, size)
        except (ValueError, zlib.error) as error:
            raise _damaged(str(error)) from error
    if len(out) != length or reader.left:
        raise _damaged("the parts do not make up the whole")
    found = bytes(out)
    if hashlib.sha256(found).digest() != digest:
        raise _damaged("the digest differs")
    return found


def _constants(onnx: bytes) -> list[tuple[bytes, int]]:
    """The raw bytes of each constant of the main graph in the file's order, and its bytes an element."""
    from onnx import ModelProto, helper

    try:
        proto = ModelProto.FromString(onnx)
    except Exception:  # protobuf's DecodeError, whose module ships no types: everything is a literal then.
        return []
    found = []
    for item in proto.graph.initializer:
        if len(item.raw_data) >= _SMALLEST:
            try:
                width = int(helper.tensor_dtype_to_np_dtype(item.data_type).itemsize)
            except (KeyError, TypeError, ValueError):
                continue
            if width in (1, 2, 4, 8) and len(item.raw_data) % width == 0:
                found.append((bytes(item.raw_data), width))
    return found


def _literal(raw: bytes) -> bytes:
    stored = zlib.compress(raw, 9)
    return _PART.pack(_LITERAL, len(raw)) + struct.pack("<Q", len(stored)) + stored


def _coded(raw: bytes, width: int) -> bytes | None:
    """The shortest coding of a constant, or `None` when deflating is shorter or it has too many values."""
    elements = np.frombuffer(raw, dtype=f"<u{width}")
    if len(np.unique(elements[: 1 << 14])) > 256:
        return None
    values = np.unique(elements)
    if len(values) > 256:
        return None
    best = _PART.pack(_DENSE, len(raw)) + _coding(elements, values, width)
    places = np.flatnonzero(elements)
    if len(places) and len(places) < len(elements):
        gaps = _gaps(places)
        lengths = code_lengths(np.bincount(gaps, minlength=256))
        sparse = (
            _PART.pack(_SPARSE, len(raw))
            + _coding(elements[places], values[values != 0], width)
            + struct.pack("<I", len(gaps)) + lengths.tobytes() + _stream(gaps, lengths)
        )  # fmt: skip
        best = min(best, sparse, key=len)
    return best if len(best) < len(_literal(raw)) else None


def _coding(elements: Array, values: Array, width: int) -> bytes:
    symbols = np.searchsorted(values, elements).astype(np.uint8)
    lengths = code_lengths(np.bincount(symbols, minlength=len(values)))
    head = struct.pack("<BH", width, len(values)) + values.astype(f"<u{width}").tobytes() + lengths.tobytes()
    return head + struct.pack("<Q", len(symbols)) + _stream(symbols, lengths)


def _stream(symbols: Array, lengths: Array) -> bytes:
    data, sizes = encode(symbols, lengths)
    return sizes.tobytes() + data


def _gaps(places: Array) -> Array:
    """Zeros before each element, in symbols of at most 254 and fillers of 255."""
    zeros = np.diff(places, prepend=-1) - 1
    fillers = zeros // _GAP
    ends = np.cumsum(fillers + 1)
    gaps = np.full(int(ends[-1]), _GAP, dtype=np.uint8)
    gaps[ends - 1] = zeros % _GAP
    return gaps


def _restored(reader: _Reader, kind: int, size: int) -> bytes:
    if kind == _LITERAL:
        (length,) = struct.unpack("<Q", reader.take(8))
        state = zlib.decompressobj()
        raw = state.decompress(reader.take(length), size + 1)
        if len(raw) != size or not state.eof or state.unused_data:
            raise ValueError("a literal part has another length")
        return raw
    if kind == _DENSE:
        values, symbols = _read_coding(reader, size, exact=True)
        return values[symbols].tobytes()
    if kind == _SPARSE:
        values, symbols = _read_coding(reader, size, exact=False)
        count = size // values.itemsize
        (number,) = struct.unpack("<I", reader.take(4))
        if not len(symbols) <= number <= count:
            raise ValueError("the gaps do not fit the elements")
        gaps = _read_stream(reader, np.frombuffer(reader.take(256), dtype=np.uint8), number)
        ends = np.cumsum(np.where(gaps == _GAP, _GAP, gaps.astype(np.int64) + 1))
        places = ends[gaps != _GAP] - 1
        if len(places) != len(symbols) or ends[-1] > count:
            raise ValueError("the gaps do not fit the elements")
        found = np.zeros(count, dtype=values.dtype)
        found[places] = values[symbols]
        return found.tobytes()
    raise ValueError(f"a part of the unknown kind {kind}")


def _read_coding(reader: _Reader, size: int, *, exact: bool) -> tuple[Array, Array]:
    width, distinct = struct.unpack("<BH", reader.take(3))
    if width not in (1, 2, 4, 8) or not 1 <= distinct <= 256 or size % width:
        raise ValueError("a part's values are impossible")
    values = np.frombuffer(reader.take(width * distinct), dtype=f"<u{width}")
    lengths = np.frombuffer(reader.take(distinct), dtype=np.uint8)
    if not lengths.all() or int(lengths.max()) > LONGEST:
        raise ValueError("a code length is impossible")
    (count,) = struct.unpack("<Q", reader.take(8))
    whole = size // width
    if not 1 <= count <= whole or (exact and count != whole):
        raise ValueError("a part has another number of elements")
    return values, _read_stream(reader, lengths, count)


def _read_stream(reader: _Reader, lengths: Array, count: int) -> Array:
    sizes = np.frombuffer(reader.take(2 * -(-count // LANE)), dtype="<u2")
    return decode(reader.take(int(sizes.sum(dtype=np.int64))), sizes, lengths, count)


@dataclass(slots=True)
class _Reader:
    """Takes bytes from the front; never more than there are."""

    data: bytes
    place: int = 0

    @property
    def left(self) -> int:
        return len(self.data) - self.place

    def take(self, count: int) -> bytes:
        if count > self.left:
            raise _damaged("it ends too early")
        self.place += count
        return self.data[self.place - count : self.place]


def _damaged(why: str) -> CompressError:
    return CompressError("the stored model is damaged", value=why, fix="copy the file again")
