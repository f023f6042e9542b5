"""One client's connection: bytes to requests, requests to the service one after the other, answers to bytes.

llhttp (Node's parser, by httptools) reads what was not seen before; see `KnownHeads` for the rest. Nothing
is kept of a request beyond its limits, and nothing waits longer than they say.
"""

from __future__ import annotations

import asyncio
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Protocol
from urllib.parse import unquote_to_bytes

import httptools

from modelyard.core.errors import RequestError
from modelyard.serve.http.answer import head_of
from modelyard.serve.http.head import Head

if TYPE_CHECKING:
    from modelyard.serve.exchange import Headers, Reply
    from modelyard.serve.http.door import HttpDoor
    from modelyard.serve.lane import Call

MAX_FIELDS = 100
"""Headers of one request."""
LONG = 16_384
"""Bytes of a body from which on it is not read for an answer that is known before."""
SWALLOWED = 65_536
"""Bytes of a refused request's body that are read to keep its connection."""
LINGER_SECONDS = 1.0
"""How long a client that is to be cut may take to hear why: closing at once would reset its connection."""

_NOTHING: dict[str, str] = {}
_NOBODY = Head("", "", _NOTHING.get, 0, keep=False, old=False)
"""The head of a request that has none."""

_Request = tuple[Head, bytes, RequestError | None]


class Service(Protocol):
    """Who answers requests; called on the event loop's thread, and never raises but where it says so."""

    @property
    def guarded(self) -> bool:
        """Whether `admit` has to be asked."""
        ...

    def admit(self, method: str, path: str, headers: Headers) -> None:
        """Raises `RequestError` for a request that may not be made; asked before its body is read."""
        ...

    def check_room(self, path: str) -> None:
        """Raises `RequestError` where there is no room for a request; asked before a long body is read."""
        ...

    def handle(self, method: str, path: str, headers: Headers, body: bytes, reply: Reply) -> Call | None:
        """Answers through `reply`, now or later; a call that is returned is dropped by its `gone`."""
        ...

    def refuse(self, error: RequestError, reply: Reply) -> None:
        """Answers with a refusal."""
        ...


class Connection(asyncio.Protocol):
    """Reads requests and writes their answers in order. Owned by its door, which looks at it every second."""

    __slots__ = (
        "_begun", "_body", "_busy", "_call", "_count", "_door", "_error", "_expected", "_fields", "_going",
        "_head", "_last", "_number", "_over", "_parser", "_queue", "_raw", "_service", "_since", "_size",
        "_transport", "_url",
    )  # fmt: skip

    def __init__(self, door: HttpDoor) -> None:
        self._door = door
        self._service = door.service
        self._transport: asyncio.Transport = None  # type: ignore[assignment] # set before anything is called
        self._parser: httptools.HttpRequestParser | None = None
        self._since = door.now
        self._queue: deque[_Request] = deque()
        self._begun = False  # a request has begun to come
        self._head: Head | None = None  # it is there as far as its body
        self._url = b""
        self._fields: dict[str, str] = {}
        self._count = self._size = self._raw = 0
        self._body: list[bytes] = []
        self._expected = 0
        self._error: RequestError | None = None
        self._busy = False  # a request waits for its answer
        self._going = False
        self._number = 0
        self._call: Call | None = None
        self._last = False  # no request may come any more
        self._over = False  # the last answer was given

    # What the transport calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]
        if not self._door.enter(self):
            self._last = self._over = True
            transport.abort()  # type: ignore[attr-defined]

    def connection_lost(self, exc: Exception | None) -> None:
        self._leave()
        self._parser = None
        self._door.leave(self)

    def data_received(self, data: bytes) -> None:
        if self._last:
            return
        if not (self._begun or self._busy):
            end = data.find(b"\r\n\r\n") + 4
            head = self._door.heads.find(data[:end])
            if head is not None and len(data) - end == head.length:
                self._take(head, data[end:], self._admitted(head))
                return
        self._parse(data)

    def eof_received(self) -> bool:
        if self._head is not None and not self._last:
            # It may still be listening.
            self._cut(
                RequestError("the body is cut short", status=408, where="body", rule="as long as announced")
            )
        self._leave()
        return False

    def pause_writing(self) -> None:
        """The client does not read its answers: it may not ask for more."""
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        if not (self._queue or self._transport.is_closing()):
            self._transport.resume_reading()

    # What the parser calls.

    def on_message_begin(self) -> None:
        self._begun = True
        self._url = b""
        self._fields = {}
        self._count = self._size = self._raw = 0
        self._body = []
        self._error = None

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count += 1
        self._size += len(name) + len(value) + 4
        fields = self._fields
        if self._count > MAX_FIELDS or self._size + len(self._url) > self._door.limits.head:
            self._error = _long_head(self._door.limits.head)
            return
        key = name.lower().decode("latin-1")
        text = value.decode("latin-1")
        fields[key] = f"{fields[key]}, {text}" if key in fields else text

    def on_headers_complete(self) -> None:
        if self._last or self._parser is None:
            return
        fields, parser = self._fields, self._parser
        announced = fields.get("content-length")
        length = -1 if "transfer-encoding" in fields else int(announced) if announced is not None else 0
        version = parser.get_http_version()
        head = self._head = Head(parser.get_method().decode(), _path(self._url), fields.get, length,
                                 parser.should_keep_alive(), version == "1.0")  # fmt: skip
        self._since = self._door.now
        error = self._error or self._wrong(head, version) or self._admitted(head)
        if error is None and length > 0:
            error = self._door.expect(length)
            self._expected = 0 if error is not None else length
        if error is None and fields.get("expect", "").lower() == "100-continue" and not self._busy:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self._error = error
        if error is not None and not 0 <= length <= min(SWALLOWED, self._door.limits.body):
            self._cut(error)

    def on_body(self, part: bytes) -> None:
        if self._error is not None or self._last:
            return
        self._body.append(part)
        if self._head is not None and self._head.length < 0:
            self._size += len(part)
            if self._size > self._door.limits.body:
                self._cut(_large_body(self._size, self._door.limits.body))

    def on_message_complete(self) -> None:
        head, self._head, self._begun = self._head, None, False
        if head is None or self._last:
            return
        body, self._body = self._body, []
        self._came()
        self._take(head, body[0] if len(body) == 1 else b"".join(body), self._error)

    # The way of a request.

    def _parse(self, data: bytes) -> None:
        fresh = not (self._begun or self._busy or self._queue)
        number = self._number
        heading = self._begun and self._head is None
        parser = self._parser
        if parser is None:
            parser = self._parser = httptools.HttpRequestParser(self)
        try:
            parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            # An offer of another protocol, which need not be taken (RFC 9110, 7.8).
            self._last = True
            return
        except httptools.HttpParserError as error:
            if not self._last:
                self._cut(
                    RequestError("this is no HTTP/1.1 request", value=str(error)[:100], where="request")
                )
            return
        if heading and self._begun and self._head is None:
            self._raw += len(data)
            if self._raw > self._door.limits.head:
                self._cut(_long_head(self._door.limits.head))
        elif fresh and self._number == number + 1 and not self._begun and self._error is None:
            self._remember(data)

    def _remember(self, data: bytes) -> None:
        """Keeps the head of a request that came whole and alone."""
        head = self._door.last
        end = data.find(b"\r\n\r\n") + 4
        if (
            head is not None
            and head.keep
            and len(data) - end == head.length
            and head.headers("expect") is None
        ):
            self._door.heads.add(data[:end], head)

    def _wrong(self, head: Head, version: str) -> RequestError | None:
        fields = self._fields
        if head.length > self._door.limits.body:
            return _large_body(head.length, self._door.limits.body)
        if version not in ("1.1", "1.0"):
            return RequestError(
                "the version of HTTP is not spoken here", status=505, value=version, rule="1.1"
            )
        if version == "1.1" and "host" not in fields:
            return RequestError("the Host is missing", where="Host", rule="RFC 9112, 3.2")
        if fields.get("expect", "100-continue").lower() != "100-continue":
            return RequestError(
                "this cannot be expected", status=417, where="Expect", value=fields["expect"][:64]
            )
        return None

    def _admitted(self, head: Head) -> RequestError | None:
        service = self._service
        try:
            if service.guarded:
                service.admit(head.method, head.path, head.headers)
            if head.length > LONG:
                service.check_room(head.path)
        except RequestError as error:
            return error
        return None

    def _cut(self, error: RequestError) -> None:
        """Refuses the request that is coming, and reads no more."""
        head = self._head or _NOBODY
        self._head = None
        self._last = True
        self._came()
        self._take(head, b"", error)

    def _take(self, head: Head, body: bytes, error: RequestError | None) -> None:
        """Answers a request, or lets it wait until those before it are answered."""
        self._door.last = head
        if not head.keep:
            self._last = True
        if self._busy or self._queue:
            self._queue.append((head, body, error))
            self._transport.pause_reading()
            return
        self._ask(head, body, error)
        if self._queue and not self._busy:
            self._go_on()

    def _ask(self, head: Head, body: bytes, error: RequestError | None) -> None:
        self._busy = True
        self._number += 1
        reply = partial(self._reply, self._number, head)
        if error is not None:
            self._service.refuse(error, reply)
            return
        call = self._service.handle(head.method, head.path, head.headers, body, reply)
        if call is not None and self._busy:
            self._call = call

    def _reply(
        self, number: int, head: Head, status: int, headers: list[tuple[str, str]], body: bytes
    ) -> None:
        if number != self._number or not self._busy:
            return
        self._busy = False
        self._call = None
        door, transport = self._door, self._transport
        self._since = door.now
        last = (self._last and not self._queue) or door.draining or ("connection", "close") in headers
        if last:
            headers = [item for item in headers if item[0] != "connection"]
            connection = b"connection: close\r\n"
        else:
            connection = b"connection: keep-alive\r\n" if head.old else b""
        text = head_of(status, headers, len(body), door.date, connection)
        transport.write(text if head.method == "HEAD" else text + body)
        if last:
            self._finish()
        elif self._queue and not self._going:
            self._go_on()

    def _go_on(self) -> None:
        """Answers what waited, as far as that is done at once."""
        self._going = True
        while self._queue and not (self._busy or self._over):
            self._ask(*self._queue.popleft())
        self._going = False
        if not (self._queue or self._transport.is_closing()):
            self._transport.resume_reading()

    def _finish(self) -> None:
        """Says that no answer follows, and leaves the client the time to read the last."""
        self._last = self._over = True
        self._queue.clear()
        if self._begun and self._transport.can_write_eof():
            self._transport.write_eof()
            self._transport.resume_reading()
        else:
            self._transport.close()

    def _leave(self) -> None:
        """Nobody waits here any more."""
        self._last = True
        self._number += 1
        self._queue.clear()
        self._came()
        if self._call is not None:
            self._call.gone = True
            self._call = None

    def _came(self) -> None:
        """The body that was to come is there, or will never be."""
        self._door.came(self._expected)
        self._expected = 0

    # What the door calls.

    def look(self, now: float) -> None:
        """Ends what takes too long."""
        waited, limits = now - self._since, self._door.limits
        if self._over:
            if waited > LINGER_SECONDS and not self._transport.get_write_buffer_size():
                self._transport.abort()
        elif self._busy or self._last:
            return
        elif self._head is not None:
            if waited > limits.body_seconds:
                self._cut(RequestError("the body did not arrive in time", status=408, where="body",
                                       rule=f"within {limits.body_seconds:g} s"))  # fmt: skip
        elif waited > limits.header_seconds:
            if self._begun:
                self._cut(RequestError("the head did not arrive in time", status=408, where="head",
                                       rule=f"within {limits.header_seconds:g} s"))  # fmt: skip
            else:
                self._transport.close()

    def rest(self) -> None:
        """Closes the connection if nothing is asked on it."""
        if not (self._busy or self._begun):
            self._transport.close()


def _path(url: bytes) -> str:
    """The path of a request's target, of its absolute form too; what is no UTF-8 leads nowhere."""
    target = url.partition(b"?")[0].partition(b"#")[0]
    if not target.startswith(b"/"):
        _, _, rest = target.partition(b"://")
        target = b"/" + rest.partition(b"/")[2] if rest else target
    if b"%" in target:
        target = unquote_to_bytes(target)
    return target.decode("utf-8", "replace")


def _long_head(limit: int) -> RequestError:
    return RequestError("the request's head is too long", status=431, where="head",
                        rule=f"at most {limit} bytes and {MAX_FIELDS} headers")  # fmt: skip


def _large_body(size: int, limit: int) -> RequestError:
    return RequestError("the body is too large", status=413, value=size, where="body",
                        rule=f"at most {limit} bytes")  # fmt: skip
