"""A small client of the prediction service: what replays held-out traffic and asks for health."""

from __future__ import annotations

import http.client
import json
import ssl
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import local
from typing import Any
from urllib.parse import urlsplit

from modelyard.core.errors import ServeError


@dataclass(frozen=True, slots=True)
class Answered:
    """One request's fate: the row asked, the answer's body (empty when it failed), status and seconds.

    `status` is 0 when the connection failed.
    """

    row: int
    status: int
    body: Mapping[str, Any]
    seconds: float

    @property
    def ok(self) -> bool:
        return self.status == 200


class Client:
    """Talks to one service; each thread keeps its own connection.

    `token` is sent with every request. Over TLS the service must show exactly `certificate` (a PEM file):
    it is the project's own service, whatever name the certificate is made out to.
    """

    def __init__(
        self, url: str, *, timeout: float = 10.0, token: str | None = None, certificate: Path | None = None
    ) -> None:
        self.url = url
        self._timeout = timeout
        self._headers = {"Content-Type": "application/json"}
        if token is not None:
            self._headers["Authorization"] = f"Bearer {token}"
        self._trust = None if certificate is None else _only(certificate)
        self._local = local()

    def post(self, path: str, body: Any) -> tuple[int, dict[str, Any]]:
        """Status and decoded body; status 0 when the service could not be reached."""
        status, text = self._ask("POST", path, json.dumps(body).encode())
        try:
            return status, json.loads(text or b"{}")
        except ValueError:
            return 0, {}

    def get(self, path: str) -> tuple[int, str]:
        """Status and text; status 0 when the service could not be reached."""
        status, text = self._ask("GET", path, None)
        return status, text.decode("utf-8", "replace")

    def _ask(self, method: str, path: str, data: bytes | None) -> tuple[int, bytes]:
        connection = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._local.connection = self._connect()
        try:
            connection.request(method, path, data, self._headers)
            response = connection.getresponse()
            return response.status, response.read()
        except (OSError, http.client.HTTPException):
            connection.close()
            self._local.connection = None
            return 0, b""

    def _connect(self) -> http.client.HTTPConnection:
        parts = urlsplit(self.url)
        host, port = parts.hostname or "127.0.0.1", parts.port or 80
        if self._trust is None:
            return http.client.HTTPConnection(host, port, timeout=self._timeout)
        return http.client.HTTPSConnection(host, port, timeout=self._timeout, context=self._trust)

    def predict(self, endpoint: str, row: int, values: Mapping[str, Any], key: str) -> Answered:
        """Asks for one row; `key` keeps the row on one side of a canary."""
        began = time.perf_counter()
        status, body = self.post(f"/predict/{endpoint}", {"id": key, "rows": [values]})
        return Answered(row, status, body, time.perf_counter() - began)

    def feedback(self, endpoint: str, items: Sequence[Mapping[str, Any]]) -> None:
        """Sends labels; raises `ServeError` when the service does not take them."""
        status, body = self.post(f"/feedback/{endpoint}", {"feedback": list(items)})
        if status != 200:
            raise ServeError(
                "the service did not take the feedback", value=body.get("error", f"status {status}")
            )


def _only(certificate: Path) -> ssl.SSLContext:
    """Trusts one certificate and nothing else."""
    context = ssl.create_default_context(cafile=str(certificate))
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context


def replay(
    client: Client,
    endpoint: str,
    rows: Iterable[tuple[int, Mapping[str, Any], str]],
    *,
    threads: int = 4,
    seen: Callable[[Answered], None] | None = None,
) -> list[Answered]:
    """Sends (number, row, key) triples from a few threads at once and returns the answers in their order."""

    def ask(item: tuple[int, Mapping[str, Any], str]) -> Answered:
        answered = client.predict(endpoint, *item)
        if seen is not None:
            seen(answered)
        return answered

    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(ask, rows))
