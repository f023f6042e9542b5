"""The bytes of an answer's head."""

from __future__ import annotations

from http import HTTPStatus

_REASONS = {status.value: status.phrase for status in HTTPStatus}
_KEPT = 256
_starts: dict[tuple[int, tuple[str, str]], bytes] = {}


def head_of(
    status: int, headers: list[tuple[str, str]], length: int, date: bytes, connection: bytes
) -> bytes:
    """Status line and headers (RFC 9112), with the empty line that ends them.

    Raises `ValueError` for a header that would begin another line.

    >>> head_of(200, [("content-type", "text/plain")], 2, b"now", b"")
    b'HTTP/1.1 200 OK\\r\\ncontent-type: text/plain\\r\\ndate: now\\r\\ncontent-length: 2\\r\\n\\r\\n'
    """
    if len(headers) == 1:
        key = (status, headers[0])
        start = _starts.get(key)
        if start is None:
            if len(_starts) >= _KEPT:
                _starts.clear()
            start = _starts[key] = _start(status, headers)
    else:
        start = _start(status, headers)
    return b"%bdate: %b\r\ncontent-length: %d\r\n%b\r\n" % (start, date, length, connection)


def _start(status: int, headers: list[tuple[str, str]]) -> bytes:
    lines = [f"HTTP/1.1 {status} {_REASONS.get(status, '')}"]
    for name, value in headers:
        if "\r" in value or "\n" in value:
            raise ValueError(f"the header {name} has a line break")
        lines.append(f"{name}: {value}")
    return ("\r\n".join(lines) + "\r\n").encode("latin-1")
