"""Where load goes and what it asks: a host, and ready bytes of one or more requests."""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote, urlsplit

from modelyard.core.errors import RequestError, ServeError
from modelyard.serve.conform.case import Inapplicable
from modelyard.serve.conform.client import Client
from modelyard.serve.conform.exchange import Exchange, Request
from modelyard.serve.conform.message import infer_binary, infer_json, sample
from modelyard.serve.conform.model import describe, discover

_VARIANTS = 32


@dataclass(frozen=True, slots=True)
class Target:
    """A server and the requests to send it in turn, as the bytes that go over the wire.

    `secure` is for https. `body` and `answer` are the sizes of a typical request's and answer's body.
    """

    host: str
    port: int
    requests: tuple[bytes, ...]
    secure: bool = False
    path: str = "/"
    body: int = 0
    answer: int = 0

    def __post_init__(self) -> None:
        if not self.requests:
            raise ServeError("there is nothing to send", rule="at least one request")


def wire(request: Request, host: str) -> bytes:
    """The bytes of a request over a connection that stays open."""
    given = {name.lower(): value for name, value in request.headers.items()}
    headers = {"host": host, "content-type": "application/json", **given}
    headers["content-length"] = str(len(request.body))
    for name, value in headers.items():
        if not f"{name}{value}".isprintable():
            raise ServeError("a header is wrong", value=name, rule="one line of printable characters")
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"{request.method} {request.path} HTTP/1.1\r\n{lines}\r\n".encode() + request.body


def target_of(url: str, requests: Sequence[Request], *, headers: Mapping[str, str] | None = None) -> Target:
    """The target of a URL (`http://host:port[/prefix]`) and requests with paths behind it."""
    parts = urlsplit(url)
    Client(url)
    host = parts.hostname or ""
    secure = parts.scheme == "https"
    port = parts.port or (443 if secure else 80)
    prefix = parts.path.rstrip("/")
    made = tuple(
        wire(
            replace(item, path=prefix + item.path, headers={**item.headers, **(headers or {})}),
            parts.netloc.rpartition("@")[2],
        )
        for item in requests
    )
    body = len(requests[0].body) if requests else 0
    return Target(host, port, made, secure, requests[0].path if requests else "/", body)


def model_requests(
    client: Client, name: str | None, *, items: int = 1, binary: bool = False
) -> list[Request]:
    """Valid inference requests that differ, made up from the model's metadata.

    Raises `ServeError` when the server lists no model, does not know the one that is named, or its metadata
    does not say what it takes.
    """
    chosen = name or discover(client)[0]
    model = describe(client, chosen)
    if not model.inputs:
        said = client.get(model.path)
        if said.response is None or not said.response.ok:
            raise ServeError("the server does not know this model", value=chosen, rule=said.said(),
                             fix="name one that it serves, or give --body FILE and --path")  # fmt: skip
    make = infer_binary if binary else infer_json
    try:
        return [make(model, sample(model, items=items, seed=seed)) for seed in range(_VARIANTS)]
    except Inapplicable as error:
        raise ServeError(
            "no requests can be made up", value=chosen, rule=str(error), fix="give some with --body FILE"
        ) from None


def file_requests(value: Any, endpoint: str | None, path: str | None = None) -> list[Request]:
    """Requests of a JSON file: one body, a list of bodies, or a list of plain rows.

    A body with `inputs` goes to the endpoint's inference URL, one with `rows` (or a plain row) to
    `/predict/ENDPOINT`, anything to `path` where one is given. Raises `RequestError` naming what is missing.
    """
    listed = value if isinstance(value, list) else [value]
    if not listed or not all(isinstance(item, dict) for item in listed):
        raise RequestError("the file holds no requests", rule="a JSON object, or a list of objects")
    made = []
    for item in listed:
        rows = "inputs" not in item
        body = item if not rows or "rows" in item or path is not None else {"rows": [item]}
        if path is None and endpoint is None:
            raise RequestError("no endpoint is named", fix="name one, or give --path")
        name = quote(endpoint or "", safe="")
        where = path or (f"/predict/{name}" if rows else f"/v2/models/{name}/infer")
        made.append(Request("POST", where, json.dumps(body, separators=(",", ":")).encode()))
    return made


def probe(client: Client, requests: Sequence[Request]) -> Exchange:
    """One request sent slowly, to see that it is answered; raises `ServeError` when it is not."""
    exchange = client.send(requests[0])
    if exchange.response is None or not 200 <= exchange.status < 300:
        raise ServeError("a first request is not answered well", value=exchange.said(),
                         fix="load would measure failures")  # fmt: skip
    return exchange


def address(target: Target) -> tuple[str, int]:
    """The address looked up once, so that load does not measure the resolver."""
    try:
        found = socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise ServeError("the server's name is not known", value=target.host, fix=str(error)) from None
    where = found[0][4]
    return str(where[0]), int(where[1])
