"""The HTTP connection as a machine: bytes in, answers out, whatever way the bytes come in."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelyard.core.clock import ManualClock
from modelyard.core.errors import RequestError
from modelyard.serve.http.answer import head_of
from modelyard.serve.http.connection import LINGER_SECONDS, Connection
from modelyard.serve.http.door import COMING_BYTES, HttpDoor
from modelyard.serve.http.head import KnownHeads
from modelyard.serve.options import Limits

LIMITS = Limits(body=1_000, head=8_192)


class Transport(asyncio.Transport):
    """Keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = b""
        self.closed = self.aborted = self.ended = self.paused = False

    def write(self, data: Any) -> None:
        self.sent += data

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.aborted = True

    def is_closing(self) -> bool:
        return self.closed or self.aborted

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.ended = True

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False

    def get_write_buffer_size(self) -> int:
        return 0


class Echo:
    """Answers with what was asked, at once or when told to."""

    guarded = False

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, bytes]] = []
        self.headers: list[Callable[[str], str | None]] = []
        self.later = False
        self.waiting: list[Callable[[], None]] = []
        self.calls: list[Any] = []

    def admit(self, method: str, path: str, headers: Any) -> None:
        if headers("authorization") != "Bearer good":
            raise RequestError("no", status=401)

    def check_room(self, path: str) -> None:
        if path == "/full":
            raise RequestError("full", status=503)

    def handle(self, method: str, path: str, headers: Any, body: bytes, reply: Any) -> Any:
        self.asked.append((method, path, body))
        self.headers.append(headers)
        answer = b"%d:" % len(self.asked) + body
        if not self.later:
            reply(200, [("content-type", "text/plain")], answer)
            return None
        self.waiting.append(lambda: reply(200, [("content-type", "text/plain")], answer))
        self.calls.append(SimpleNamespace(gone=False))
        return self.calls[-1]

    def refuse(self, error: RequestError, reply: Any) -> None:
        close = [("connection", "close")] if error.status in (408, 413) else []
        reply(error.status, [("content-type", "text/plain"), *close], str(error).encode())


class Client:
    """One connection of a door, and what it hears."""

    def __init__(self, door: HttpDoor | None = None, **service: Any) -> None:
        self.clock = ManualClock(100.0)
        self.service = Echo()
        for name, value in service.items():
            setattr(self.service, name, value)
        self.door = door or HttpDoor(self.service, LIMITS, self.clock)
        self.connection = Connection(self.door)
        self.transport = Transport()
        self.connection.connection_made(self.transport)

    def send(self, *parts: bytes) -> bytes:
        """What is answered to these bytes."""
        before = len(self.transport.sent)
        for part in parts:
            self.connection.data_received(part)
        return self.transport.sent[before:]

    def after(self, seconds: float) -> bytes:
        """What is heard when the door looks again after a time."""
        before = len(self.transport.sent)
        self.clock.advance(seconds)
        self.door.now = self.clock.monotonic()
        self.connection.look(self.door.now)
        return self.transport.sent[before:]


def post(body: bytes, *extra: bytes, path: bytes = b"/a", length: int | None = None) -> bytes:
    size = len(body) if length is None else length
    head = [b"POST %s HTTP/1.1" % path, b"Host: a", b"Content-Length: %d" % size, *extra]
    return b"\r\n".join(head) + b"\r\n\r\n" + body


def chunked(*parts: bytes) -> bytes:
    head = b"POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


def statuses(sent: bytes) -> list[int]:
    return [int(found) for found in re.findall(rb"HTTP/1\.1 (\d{3}) ", sent)]


GET = b"GET /b?x=1 HTTP/1.1\r\nHost: a\r\n\r\n"


@settings(deadline=None, max_examples=300)
@given(
    kinds=st.lists(
        st.sampled_from(["short", "empty", "get", "chunks", "other", "head"]), min_size=1, max_size=6
    ),
    cuts=st.lists(st.integers(0, 600), max_size=12),
)
def test_the_bytes_mean_the_same_however_they_are_cut(kinds: list[str], cuts: list[int]) -> None:
    texts = {
        "short": post(b"abc"), "empty": post(b""), "get": GET, "chunks": chunked(b"ab", b"c" * 20),
        "other": post(b"GET / HTTP/1.1\r\nHost: b\r\n\r\n", b"X-Y: z", path=b"/c%20d"),
        "head": b"HEAD /b HTTP/1.1\r\nHost: a\r\n\r\n",
    }  # fmt: skip
    meant = {
        "short": ("POST", "/a", b"abc"), "empty": ("POST", "/a", b""), "get": ("GET", "/b", b""),
        "chunks": ("POST", "/a", b"ab" + b"c" * 20),
        "other": ("POST", "/c d", b"GET / HTTP/1.1\r\nHost: b\r\n\r\n"), "head": ("HEAD", "/b", b""),
    }  # fmt: skip
    # Each on its own first, so that the door knows their heads; then as one stream, cut anywhere.
    client = Client()
    for kind in kinds:
        client.send(texts[kind])
    alone = client.service.asked
    assert alone == [meant[kind] for kind in kinds]
    service = client.service.asked = []
    stream = b"".join(texts[kind] for kind in kinds)
    places = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    sent = client.send(*(stream[a:b] for a, b in pairwise(places)))
    assert client.service.asked == [meant[kind] for kind in kinds] and service is client.service.asked
    assert statuses(sent) == [200] * len(kinds)
    assert not client.transport.closed and client.door._coming == 0


def test_a_known_head_is_not_parsed_again_and_means_the_same() -> None:
    client = Client()
    client.send(post(b"abc", b"Traceparent: x"))
    known = len(client.door.heads._heads)
    client.connection._parser = None
    client.send(post(b"xyz", b"Traceparent: x"))
    assert client.connection._parser is None and known == 1
    assert client.service.asked[-1] == ("POST", "/a", b"xyz")
    assert client.service.headers[-1]("traceparent") == "x"
    # A body of another length, or one that is not whole yet, is the parser's again.
    assert statuses(client.send(post(b"xyz", b"Traceparent: x")[:-1])) == []
    assert statuses(client.send(b"z" + post(b"longer", b"Traceparent: x"))) == [200, 200]
    assert [body for *_, body in client.service.asked[-2:]] == [b"xyz", b"longer"]


@pytest.mark.parametrize("text", [
    post(b"abc", b"Expect: 100-continue"), post(b"abc", b"Connection: close"), chunked(b"abc"),
    GET + GET, post(b"abc")[:-1],
])  # fmt: skip
def test_what_is_not_ordinary_is_not_remembered(text: bytes) -> None:
    client = Client()
    client.send(text)
    assert not client.door.heads._heads


def test_a_known_head_is_admitted_each_time() -> None:
    client = Client(guarded=True)
    good, bad = post(b"a", b"Authorization: Bearer good"), post(b"a", b"Authorization: Bearer bad")
    assert statuses(client.send(good)) == [200]
    client.service.admit = lambda *_: (_ for _ in ()).throw(RequestError("revoked", status=403))  # type: ignore[method-assign]
    assert statuses(client.send(good)) == [403]
    assert statuses(Client(guarded=True).send(bad, bad)) == [401, 401]
    assert len(client.service.asked) == 1


def test_answers_keep_the_order_and_reading_waits_for_them() -> None:
    client = Client(later=True)
    assert client.send(post(b"1") + post(b"2") + GET) == b""
    assert len(client.service.asked) == 1 and client.transport.paused
    for number in range(3):
        client.service.waiting[number]()
        client.service.waiting[number]()  # nobody hears an answer that is given twice
    assert statuses(client.transport.sent) == [200] * 3
    assert client.transport.sent.index(b"1:1") < client.transport.sent.index(b"2:2")
    assert not client.transport.paused


def test_thousands_of_requests_in_one_packet_need_no_stack() -> None:
    client = Client()
    assert statuses(client.send(GET * 5_000)) == [200] * 5_000


def test_who_leaves_is_not_waited_for() -> None:
    for leave in ("eof_received", "connection_lost"):
        client = Client(later=True)
        client.send(post(b"1") + post(b"2"))
        getattr(client.connection, leave)(*([None] if leave == "connection_lost" else []))
        assert client.service.calls[0].gone
        client.service.waiting[0]()
        assert client.transport.sent == b"" and len(client.service.asked) == 1


def test_what_a_head_may_be() -> None:
    for text, status in (
        (b"GET /a HTTP/1.1\r\n\r\n", 400),  # no Host
        (b"GET /a HTTP/1.0\r\n\r\n", 200),
        (b"GET http://x.y/a?b HTTP/1.1\r\nHost: a\r\n\r\n", 200),
        (b"GET /a HTTP/2.0\r\nHost: a\r\n\r\n", 505),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00", 400),
        (post(b"", b"Content-Length: 0", b"Content-Length: 5"), 400),
        (post(b"", b"Transfer-Encoding: chunked"), 400),
        (post(b"abc", length=-1), 400),
        (post(b"", length=10**30), 400),
        (post(b"", length=1_001), 413),
        (post(b"a", b"Expect: a miracle"), 417),
        (b"GET /" + b"a" * 9_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 101 + b"\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 9_000 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX : y\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n folded\r\n\r\n", 400),
        (b"GET / HTTP/1.1\nHost: a\n\n", 400),
        (b"GET /a HTTP/1.1\r\nHost: a\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n", 200),
    ):
        client = Client()
        assert statuses(client.send(text))[:1] == [status], text[:60]
    client = Client()
    client.send(b"GET http://x.y/a?b HTTP/1.1\r\nHost: a\r\nX: 1\r\nx: 2\r\n\r\n")
    assert client.service.asked == [("GET", "/a", b"")] and client.service.headers[0]("x") == "1, 2"


def test_a_head_that_never_ends_is_cut() -> None:
    client = Client()
    sent = b""
    for _ in range(40):
        sent += client.send(b"GET / HTTP/1.1\r\nHost: a\r\nX: " if not sent and not client.connection._begun
                            else b"y" * 1_000)  # fmt: skip
    assert statuses(sent) == [431] and client.transport.ended


def test_bodies_within_their_limits() -> None:
    client = Client()
    assert statuses(client.send(chunked(*[b"x" * 100] * 11))) == [413]
    assert b"connection: close" in client.transport.sent
    client = Client()
    # Refused before its body came: the client has a moment to read why, and what it sends is thrown away.
    assert statuses(client.send(post(b"", length=2_000))) == [413]
    assert client.transport.ended and not client.transport.closed and client.send(b"x" * 2_000) == b""
    client.after(LINGER_SECONDS + 0.1)
    assert client.transport.aborted
    client = Client()
    assert client.send(post(b"", b"Expect: 100-continue", length=3)) == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert statuses(client.send(b"abc")) == [200]


def test_a_refused_body_that_is_short_is_swallowed_and_the_connection_kept() -> None:
    client = Client(guarded=True)
    assert client.send(post(b"", length=500)) == b""
    assert statuses(client.send(b"x" * 500 + post(b"a", b"Authorization: Bearer good"))) == [401, 200]
    assert client.service.asked == [("POST", "/a", b"a")]


def test_a_long_body_is_not_read_to_be_refused() -> None:
    client = Client(HttpDoor(Echo(), Limits(), ManualClock()))
    # A short one is, and is the service's to refuse.
    assert statuses(client.send(post(b"a", path=b"/full"))) == [200]
    assert client.send(post(b"", length=20_000, path=b"/full")) == b""
    assert statuses(client.send(b"x" * 20_000 + GET)) == [503, 200]
    assert statuses(client.send(post(b"", length=100_000, path=b"/full"))) == [503]
    assert client.transport.ended


def test_bodies_together_are_bounded() -> None:
    service = Echo()
    door = HttpDoor(service, Limits(body=COMING_BYTES), ManualClock())
    first, second = (Client(door) for _ in range(2))
    assert first.send(post(b"", length=COMING_BYTES - 10)) == b""
    assert statuses(second.send(post(b"", length=200_000))) == [503]
    first.connection.connection_lost(None)
    assert door._coming == 0
    assert Client(door).send(post(b"", length=200_000)) == b""


def test_nothing_waits_for_ever() -> None:
    client = Client()
    assert client.after(LIMITS.header_seconds - 1) == b"" and not client.transport.closed
    client.after(2)
    assert client.transport.closed  # nothing was said: nothing is answered
    client = Client()
    client.send(b"GET / HT")
    assert statuses(client.after(LIMITS.header_seconds + 1)) == [408]
    client = Client()
    client.send(post(b"abc", length=10))
    assert client.after(LIMITS.header_seconds + 1) == b""
    assert statuses(client.after(LIMITS.body_seconds)) == [408]
    client = Client(later=True)
    client.send(post(b"abc"))
    assert client.after(1_000) == b"" and not client.transport.closed  # it waits for us
    client = Client()
    client.send(post(b"abc", length=10))
    client.connection.eof_received()
    assert statuses(client.transport.sent) == [408]


def test_the_last_answers_of_a_door_say_so() -> None:
    client = Client(later=True)
    client.send(post(b"1"))
    client.door.draining = True
    client.connection.rest()
    assert not client.transport.closed
    client.service.waiting[0]()
    assert b"connection: close" in client.transport.sent and client.transport.closed
    idle = Client()
    idle.connection.rest()
    assert idle.transport.closed


def test_a_client_that_does_not_read_is_not_read() -> None:
    client = Client()
    client.connection.pause_writing()
    assert client.transport.paused
    client.connection.resume_writing()
    assert not client.transport.paused


def test_http_1_0_and_head() -> None:
    client = Client()
    sent = client.send(b"GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
    assert b"connection: keep-alive" in sent and not client.transport.closed
    sent = client.send(b"HEAD /a HTTP/1.0\r\n\r\n")
    assert sent.endswith(b"\r\n\r\n") and b"content-length: 2" in sent and client.transport.closed


def test_a_header_cannot_begin_another() -> None:
    with pytest.raises(ValueError, match="line break"):
        head_of(200, [("a", "b\r\nc: d")], 0, b"", b"")


def test_known_heads_are_bounded() -> None:
    heads = KnownHeads()
    for number in range(10_000):
        heads.add(b"%d" % number, SimpleNamespace())  # type: ignore[arg-type]
    heads.add(b"x" * 5_000, SimpleNamespace())  # type: ignore[arg-type]
    assert len(heads._heads) <= 4_096 and heads.find(b"x" * 5_000) is None
