"""Content encodings: compressed bodies in, within bounds, and compressed answers out for those who ask.

gzip and deflate (RFC 1952, 1950) through zlib, zstd (RFC 8878) through Arrow, which the prediction log
needs anyway. A body is unpacked piece by piece and refused the moment it grows past its bound, so a small
body cannot take much memory.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Literal, TypeAlias

from modelyard.core.errors import RequestError

Encoding: TypeAlias = Literal["gzip", "zstd", "deflate"]

SUPPORTED: tuple[Encoding, ...] = ("zstd", "gzip", "deflate")
"""What is understood, and what an answer is written in, the first that the client takes."""

SMALLEST = 1_024
"""An answer below this many bytes is sent as it is: packing it would cost more than it saves."""

_FREE = 1 << 20
_PIECE = 1 << 18
_FEED = 1 << 16
_WINDOW: dict[str, int] = {"gzip": 31, "deflate": 15}
_ALIAS = {"x-gzip": "gzip"}


def check_encoding(value: str) -> Encoding | None:
    """The encoding that a `Content-Encoding` names, `None` for identity; raises `RequestError` 415."""
    name = value.strip().lower()
    name = _ALIAS.get(name, name)
    for known in SUPPORTED:
        if name == known:
            return known
    if name in ("", "identity"):
        return None
    raise RequestError("the content encoding is not supported", status=415, value=value[:64],
                       where="Content-Encoding", rule="one of " + ", ".join(SUPPORTED))  # fmt: skip


def unpack(body: bytes, encoding: Encoding, *, limit: int, ratio: int) -> bytes:
    """The body as it was before it was compressed.

    Raises `RequestError` 413 past `limit` bytes, or past one MiB and `ratio` times its size, and 400 for
    a body that is damaged, cut short, or followed by something else.
    """
    allowed = min(limit, max(_FREE, ratio * len(body)))
    parts = []
    size = 0
    for part in _zstd(body) if encoding == "zstd" else _zlib(body, _WINDOW[encoding]):
        size += len(part)
        if size > allowed:
            raise RequestError("the body unpacks to too much", status=413, value=f"{len(body)} bytes packed",
                               where="Content-Encoding",
                               rule=f"at most {limit} bytes, and {ratio} times the packed size beyond 1 MiB",
                               )  # fmt: skip
        parts.append(part)
    return b"".join(parts)


def accepted(header: str) -> Encoding | None:
    """The encoding in which a client with this `Accept-Encoding` gets an answer, `None` for none.

    >>> accepted("gzip, deflate, br, zstd"), accepted("gzip;q=0, *"), accepted("identity"), accepted("*;q=0")
    ('zstd', 'zstd', None, None)
    """
    weights: dict[str, float] = {}
    for item in header.lower().split(","):
        name, _, parameter = item.strip().partition(";")
        weight = parameter.strip()
        try:
            weights[_ALIAS.get(name.strip(), name.strip())] = (
                float(weight[2:]) if weight.startswith("q=") else 1.0
            )
        except ValueError:
            continue
    rest = weights.get("*", 0.0)
    wanted = [(weights.get(name, rest), -place, name) for place, name in enumerate(SUPPORTED)]
    weight_of_best, _, best = max(wanted)
    return best if weight_of_best > 0 else None


def pack(body: bytes, encoding: Encoding) -> bytes:
    """The body compressed, quickly rather than tightly."""
    if encoding == "zstd":
        import pyarrow

        packed: bytes = pyarrow.Codec("zstd", compression_level=1).compress(body, asbytes=True)
        return packed
    packer = zlib.compressobj(1, zlib.DEFLATED, _WINDOW[encoding])
    return packer.compress(body) + packer.flush()


def _zlib(body: bytes, window: int) -> Iterator[bytes]:
    """The pieces of a body in one gzip or zlib stream; a second one behind it is refused."""
    stream = zlib.decompressobj(window)
    view = memoryview(body)
    at = 0
    try:
        # What is not consumed is copied at every step: it is kept small.
        while at < len(view) and not stream.eof:
            left: bytes | memoryview = view[at : at + _FEED]
            at += len(left)
            while left and not stream.eof:
                yield stream.decompress(left, _PIECE)
                left = stream.unconsumed_tail
        while not stream.eof and (part := stream.decompress(b"", _PIECE)):
            yield part
    except zlib.error as error:
        raise _damaged(str(error)) from None
    if not stream.eof:
        raise _damaged("it is cut short")
    if stream.unused_data or at < len(view):
        raise _damaged("something follows it")


def _zstd(body: bytes) -> Iterator[bytes]:
    import pyarrow

    if not body:
        return
    try:
        with pyarrow.CompressedInputStream(pyarrow.BufferReader(body), "zstd") as stream:
            while part := stream.read(_PIECE):
                yield part
    except OSError as error:
        raise _damaged(str(error)) from None


def _damaged(why: str) -> RequestError:
    return RequestError("the body cannot be unpacked", value=why[:120], where="Content-Encoding",
                        rule="one whole stream of the encoding that the header names")  # fmt: skip
