"""Responses cut anywhere are read the same."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.serve.load.reply import BadReply, ReplyReader

STREAM = (
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
    b"HTTP/1.1 100 Continue\r\n\r\n"
    b"HTTP/1.1 503 Busy\r\nRetry-After: 1\r\ncontent-length:0\r\n\r\n"
    b"HTTP/1.1 204 None\r\n\r\n"
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n1F;x=y\r\n"
    + b"z"
    * 31
    + b"\r\n0\r\n\r\n"
    b"HTTP/1.1 404 No\r\nCONTENT-LENGTH: 2 \r\nConnection: close\r\n\r\nno"
)


@given(st.lists(st.integers(0, len(STREAM)), max_size=30))
def test_any_cut(cuts: list[int]) -> None:
    reader, found = ReplyReader(), []
    places = [0, *sorted(cuts), len(STREAM)]
    for start, end in pairwise(places):
        found += reader.feed(STREAM[start:end])
    assert found == [200, 503, 204, 200, 404]
    assert reader.closing and reader.size == 2


def test_a_response_that_ends_with_the_connection() -> None:
    reader = ReplyReader()
    assert reader.feed(b"HTTP/1.0 200 OK\r\n\r\nabc") == [] and reader.closing
    assert reader.end() == [200] and reader.size == 3 and reader.end() == []


def test_a_cut_response_is_none() -> None:
    reader = ReplyReader()
    assert reader.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc") == []
    assert reader.end() == []


@pytest.mark.parametrize(
    "data",
    [b"SSH-2.0-x\r\n\r\n", b"HTTP/1.1 abc\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
     b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999\r\n\r\n", b"x" * 70_000,
     b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"],
)  # fmt: skip
def test_bad_replies(data: bytes) -> None:
    with pytest.raises(BadReply):
        ReplyReader().feed(data)
