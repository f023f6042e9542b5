"""Cases of wrong requests: refused with an error status, quickly, in the protocol's words."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from modelyard.serve.conform.case import Case, Check, Inapplicable, need
from modelyard.serve.conform.client import Client
from modelyard.serve.conform.exchange import Exchange, Request
from modelyard.serve.conform.message import path_of
from modelyard.serve.conform.model import ModelInfo, parse
from modelyard.serve.conform.wrong import WRONG, Wrong

QUICK = 5.0
"""Seconds within which a wrong request must be refused."""


def _refused(wrong: Wrong) -> Check:
    def check(client: Client, model: ModelInfo) -> str:
        exchange = client.send(wrong.make(model))
        response = exchange.response
        need(response is not None, exchange.said(), exchange)
        need(exchange.status >= 400, f"it was answered: {exchange.said()}", exchange)
        took = QUICK if response is None else response.seconds
        need(took < QUICK, f"it was refused after {took:.1f} s only", exchange)
        return str(exchange.status)

    return check


def _refusals(client: Client, model: ModelInfo) -> Iterator[Exchange]:
    """The refusals of every wrong request that can be made; what is answered has its own case."""
    for wrong in WRONG:
        try:
            exchange = client.send(wrong.make(model))
        except Inapplicable:
            continue
        if exchange.status >= 400:
            yield exchange


def _every(judge: Callable[[Exchange], str | None]) -> Check:
    """Holds when no refusal is judged wrong; says how many were wrong and shows the first."""

    def check(client: Client, model: ModelInfo) -> str:
        seen = 0
        bad: list[tuple[str, Exchange]] = []
        for exchange in _refusals(client, model):
            seen += 1
            if (why := judge(exchange)) is not None:
                bad.append((why, exchange))
        if bad:
            need(False, f"{len(bad)} of {seen} refusals: {bad[0][0]}", bad[0][1])
        return f"{seen} refusals"

    return check


def _object(exchange: Exchange) -> str | None:
    value = parse(exchange)
    if isinstance(value, dict) and isinstance(value.get("error"), str) and value["error"]:
        return None
    return f'the body is not {{"error": text}}: {exchange.said()}'


def _typed(exchange: Exchange) -> str | None:
    kind = "" if exchange.response is None else exchange.response.kind
    return None if kind == "application/json" else f"the content type is {kind!r}"


def _client_fault(exchange: Exchange) -> str | None:
    return (
        None if exchange.status < 500 else f"the client's mistake is called the server's: {exchange.said()}"
    )


def _not_found(client: Client, model: ModelInfo) -> str:
    for path in ("/v2/models/conform-no-such-model", "/v2/models/conform-no-such-model/ready"):
        exchange = client.get(path)
        need(exchange.status >= 400, f"GET {path}: {exchange.said()}", exchange)
    return ""


def _method(client: Client, model: ModelInfo) -> str:
    exchange = client.get(path_of(model))
    need(400 <= exchange.status < 500, f"GET of the inference URL: {exchange.said()}", exchange)
    other = client.send(Request("DELETE", model.path))
    need(400 <= other.status < 500, f"DELETE of the model: {other.said()}", other)
    return f"{exchange.status}, {other.status}"


REFUSING = (
    *(Case(w.id, f"refused: {w.title}", w.section, w.level, _refused(w)) for w in WRONG),
    Case("error.unknown-metadata", "refused: metadata and readiness of no model", "Model Metadata",
         "required", _not_found),
    Case("error.object", 'every refusal is {"error": text}', "Inference Response Error", "required",
         _every(_object)),
    Case("error.content-type", "every refusal says that it is JSON", "HTTP/REST", "optional", _every(_typed)),
    Case("error.client-fault", "a client's mistake is 4xx, never 5xx", "HTTP/REST", "optional",
         _every(_client_fault)),
    Case("error.method", "methods that make no sense are refused", "HTTP/REST", "optional", _method),
)  # fmt: skip
