"""A small client of the prediction service: what replays held-out traffic and asks for health."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
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
    """Talks JSON to one service; each thread keeps its own connection."""

    def __init__(self, url: str, *, timeout: float = 10.0) -> None:
        parts = urlsplit(url)
        self.url = url
        self._host, self._port, self._timeout = parts.hostname or "127.0.0.1", parts.port or 80, timeout
        self._local = local()

    def post(self, path: str, body: Any) -> tuple[int, dict[str, Any]]:
        """Status and decoded body; status 0 when the service could not be reached."""
        data = json.dumps(body).encode()
        connection = getattr(self._local, "connection", None)
        if connection is None:
            connection = http.client.HTTPConnection(self._host, self._port, timeout=self._timeout)
            self._local.connection = connection
        try:
            connection.request("POST", path, data, {"Content-Type": "application/json"})
            response = connection.getresponse()
            return response.status, json.loads(response.read() or b"{}")
        except (OSError, http.client.HTTPException, ValueError):
            connection.close()
            self._local.connection = None
            return 0, {}

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
