"""A blocking HTTP client that talks to one server only, within bounds, and never raises for what it sees."""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import SplitResult, urlsplit

from modelyard.core.errors import ServeError
from modelyard.serve.conform.exchange import Exchange, Request, Response

_BLOCK = 1 << 16


@dataclass(frozen=True, slots=True)
class Client:
    """Sends requests to `url` and nowhere else: no redirects, no proxies, one connection a request.

    `timeout` bounds one exchange in seconds, `limit` the bytes of one response that are read. `headers` go
    with every request (a token, say). `grpc` is the address of the server's gRPC door where it has one.
    `control` allows cases that change what the server has loaded.
    """

    url: str
    timeout: float = 10.0
    limit: int = 64 << 20
    headers: Mapping[str, str] = field(default_factory=dict)
    grpc: str | None = None
    control: bool = False

    def __post_init__(self) -> None:
        parts = _parts(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ServeError("the server's address is no URL", value=self.url, rule="http://HOST[:PORT]")

    def send(self, request: Request) -> Exchange:
        """One exchange; a failure to connect, send or read is said in its `error`."""
        given = {**self.headers, **request.headers}
        typed = not request.body or any(name.lower() == "content-type" for name in given)
        kind = {} if typed else {"Content-Type": "application/json"}
        asked = Request(request.method, request.path, request.body, {**kind, **given})
        started = time.perf_counter()
        try:
            connection = self._connection()
            try:
                return Exchange(asked, self._exchange(connection, asked, started))
            finally:
                connection.close()
        except (OSError, http.client.HTTPException, ValueError) as error:
            took = time.perf_counter() - started
            late = isinstance(error, TimeoutError) or took >= self.timeout
            why = f"nothing within {self.timeout:g} s" if late else f"{type(error).__name__}: {error}"
            return Exchange(asked, None, why)

    def get(self, path: str) -> Exchange:
        return self.send(Request("GET", path))

    def _connection(self) -> http.client.HTTPConnection:
        parts = _parts(self.url)
        host = parts.hostname or ""
        if parts.scheme == "https":
            context = ssl.create_default_context()
            return http.client.HTTPSConnection(host, parts.port, timeout=self.timeout, context=context)
        return http.client.HTTPConnection(host, parts.port, timeout=self.timeout)

    def _exchange(self, connection: http.client.HTTPConnection, request: Request, started: float) -> Response:
        path = _parts(self.url).path.rstrip("/") + request.path
        connection.connect()
        connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        headers = {**request.headers, "Connection": "close"}
        # A server may refuse before it has read all; its answer is still to be had.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.request(request.method, path, request.body or None, headers)
        response = connection.getresponse()
        parts: list[bytes] = []
        size = 0
        while part := response.read1(_BLOCK):
            parts.append(part)
            size += len(part)
            if size > self.limit:
                raise ValueError(f"the response is longer than {self.limit} bytes")
            if time.perf_counter() - started > self.timeout:
                raise TimeoutError
        came = {name.lower(): value for name, value in response.getheaders()}
        if (length := came.get("content-length", "")).isdigit() and int(length) != size:
            raise ValueError(f"{size} of {length} bytes of the body came")
        return Response(response.status, came, b"".join(parts), time.perf_counter() - started)


def _parts(url: str) -> SplitResult:
    parts = urlsplit(url)
    try:
        _ = parts.port
    except ValueError:
        raise ServeError("the port is wrong", value=url, rule="0 to 65535") from None
    return parts
