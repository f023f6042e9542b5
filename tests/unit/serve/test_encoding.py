"""Content encodings: what is packed comes back, and no body takes more memory or time than it may."""

from __future__ import annotations

import gzip
import tracemalloc
import zlib
from time import perf_counter

import pyarrow
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelyard.core.errors import RequestError
from modelyard.serve.encoding import SUPPORTED, Encoding, accepted, check_encoding, pack, unpack

LIMIT = 64 << 20


def refused(body: bytes, encoding: Encoding, *, limit: int = LIMIT, ratio: int = 100) -> RequestError:
    with pytest.raises(RequestError) as caught:
        unpack(body, encoding, limit=limit, ratio=ratio)
    return caught.value


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=4_000), st.integers(1, 300), st.sampled_from(SUPPORTED))
def test_what_is_packed_comes_back(body: bytes, times: int, encoding: Encoding) -> None:
    assert unpack(pack(body * times, encoding), encoding, limit=LIMIT, ratio=10**6) == body * times


def test_other_writers_are_understood() -> None:
    assert unpack(gzip.compress(b"abc" * 99), "gzip", limit=LIMIT, ratio=9) == b"abc" * 99
    assert unpack(zlib.compress(b"abc" * 99), "deflate", limit=LIMIT, ratio=9) == b"abc" * 99
    assert gzip.decompress(pack(b"abc", "gzip")) == b"abc"


@pytest.mark.parametrize("encoding", SUPPORTED)
def test_a_bomb_is_refused_before_it_is_unpacked(encoding: Encoding) -> None:
    bomb = pack(bytes(200 << 20), encoding)
    assert len(bomb) < 2 << 20
    tracemalloc.start()
    error = refused(bomb, encoding, ratio=10**9)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert error.status == 413 and peak < LIMIT + (8 << 20)
    assert refused(pack(bytes(3 << 20), encoding), encoding, ratio=100).status == 413
    # Zeros are honest data too: up to a MiB the ratio does not matter.
    assert len(unpack(pack(bytes(1 << 20), encoding), encoding, limit=LIMIT, ratio=100)) == 1 << 20


@pytest.mark.parametrize("encoding", SUPPORTED)
def test_a_damaged_body_is_refused(encoding: Encoding) -> None:
    whole = pack(b'{"rows": [1, 2, 3]}' * 50, encoding)
    for body in (
        whole[:-1],
        whole[:-6],
        whole[: len(whole) // 2],
        whole[:1],
        whole + b"x",
        b"",
        b"{}",
        bytes(40),
    ):
        if body == b"" and encoding == "zstd":
            continue
        assert refused(body, encoding).status == 400
    with pytest.raises(RequestError):
        unpack(bytes([*whole[:8], *(byte ^ 85 for byte in whole[8:])]), encoding, limit=LIMIT, ratio=100)


@settings(max_examples=80, deadline=None)
@given(st.binary(max_size=200), st.sampled_from(SUPPORTED))
def test_noise_is_read_or_refused(body: bytes, encoding: Encoding) -> None:
    try:
        unpack(body, encoding, limit=LIMIT, ratio=100)
    except RequestError as error:
        assert error.status in (400, 413)


def test_many_empty_streams_take_no_time() -> None:
    began = perf_counter()
    assert refused(gzip.compress(b"") * 200_000, "gzip").status == 400
    empty = pyarrow.Codec("zstd").compress(b"", asbytes=True)
    assert unpack(empty * 200_000, "zstd", limit=LIMIT, ratio=100) == b""
    assert perf_counter() - began < 3


def test_names_of_encodings() -> None:
    assert check_encoding(" GZip ") == "gzip" and check_encoding("x-gzip") == "gzip"
    assert check_encoding("identity") is None and check_encoding("") is None
    for name in ("br", "gzip, gzip", "gzip, zstd", "compress", "\x00", "g" * 9_999):
        with pytest.raises(RequestError, match="Content-Encoding") as caught:
            check_encoding(name)
        assert caught.value.status == 415


@pytest.mark.parametrize(
    ("header", "encoding"),
    [("gzip", "gzip"), ("gzip;q=0.5, zstd;q=0.4", "gzip"), ("br", None), ("", None), (";;,,=", None),
     ("deflate", "deflate"), ("gzip;q=x", None), ("*", "zstd"), ("*;q=0.1, zstd;q=0", "gzip"),
     ("zstd;q=0, gzip;q=0", None), ("gzip;q=nan", None)],
)  # fmt: skip
def test_what_a_client_accepts(header: str, encoding: str | None) -> None:
    assert accepted(header) == encoding
