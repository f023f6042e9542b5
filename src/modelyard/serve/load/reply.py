"""Reads HTTP/1.1 responses from a byte stream: status and where they end, nothing else, fast."""

from __future__ import annotations

MAX_HEAD = 1 << 16
MAX_BODY = 1 << 30


class BadReply(Exception):
    """The bytes are no HTTP/1.1 response."""


class ReplyReader:
    """Feed bytes; get the status of each response that is complete, one connection after another.

    >>> reader = ReplyReader()
    >>> reader.feed(b"HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\no"), reader.feed(b"k")
    ([], [200])

    Raises `BadReply` for what is none. A response without a length ends with the connection (`end`).
    `size` is the last body's length, `closing` whether the server said that it closes.
    """

    __slots__ = ("_buffer", "_chunked", "_need", "_status", "closing", "size")

    def __init__(self) -> None:
        self._buffer = b""
        self._need: int | None = None
        self._status = 0
        self._chunked = False
        self.size = 0
        self.closing = False

    def feed(self, data: bytes) -> list[int]:
        """The statuses of the responses that this completes."""
        self._buffer = self._buffer + data if self._buffer else data
        done: list[int] = []
        while self._buffer or self._need == 0:
            if self._status == 0 and not self._head():
                break
            if self._status < 200:
                self._status = 0  # 100 Continue, 103 Early Hints: the answer follows
                continue
            if not self._body():
                break
            done.append(self._status)
            self._status, self._need, self._chunked = 0, None, False
        return done

    def end(self) -> list[int]:
        """The connection ended: completes a response that had no length."""
        if self._status >= 200 and self._need is None and not self._chunked:
            self.size = len(self._buffer)
            status, self._status, self._buffer = self._status, 0, b""
            return [status]
        return []

    def _head(self) -> bool:
        buffer = self._buffer
        end = buffer.find(b"\r\n\r\n")
        if end < 0:
            if len(buffer) > MAX_HEAD:
                raise BadReply("the head of the response is too long")
            return False
        if not buffer.startswith(b"HTTP/1.") or not buffer[9:12].isdigit():
            raise BadReply(f"the response begins with {buffer[:20]!r}")
        self._status = int(buffer[9:12])
        head = buffer[:end].lower()
        self.closing = b"\r\nconnection: close" in head or head.startswith(b"http/1.0")
        self._need = None
        self._chunked = b"\r\ntransfer-encoding: chunked" in head
        at = head.find(b"\r\ncontent-length:")
        if at >= 0:
            stop = head.find(b"\r\n", at + 2)
            text = head[at + 17 : stop if stop >= 0 else end].strip()
            if not text.isdigit() or int(text) > MAX_BODY:
                raise BadReply(f"the length of the response is {text!r}")
            self._need = int(text)
        elif self._status in (204, 304):
            self._need = 0
        self._buffer = buffer[end + 4 :]
        return True

    def _body(self) -> bool:
        if self._chunked:
            return self._chunks()
        if self._need is None or len(self._buffer) < self._need:
            return False
        self.size = self._need
        self._buffer = self._buffer[self._need :]
        return True

    def _chunks(self) -> bool:
        """Whether all chunks are there; they are counted anew with each feed, which small bodies forgive."""
        buffer, at, size = self._buffer, 0, 0
        while True:
            end = buffer.find(b"\r\n", at)
            if end < 0:
                return False
            try:
                length = int(buffer[at:end].partition(b";")[0], 16)
            except ValueError:
                raise BadReply("the length of a chunk is wrong") from None
            if length < 0 or length > MAX_BODY:
                raise BadReply("the length of a chunk is wrong")
            if length == 0:
                stop = buffer.find(b"\r\n\r\n", end - 2)
                if stop < 0:
                    return False
                self.size, self._buffer = size, buffer[stop + 4 :]
                return True
            at, size = end + 2 + length + 2, size + length
            if at > len(buffer):
                return False
