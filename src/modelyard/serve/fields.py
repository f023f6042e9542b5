"""Fields of a request that stand outside of its body: the method, lengths, timeouts."""

from __future__ import annotations

from math import inf

from modelyard.core.errors import RequestError
from modelyard.serve.exchange import Exchange

HEADER_LENGTH = "inference-header-content-length"
TIMEOUT = "x-request-timeout-ms"

LONGEST_MS = 86_400_000
"""Longest timeout that a client may name: a day."""


def only(method: str, *allowed: str) -> None:
    """Raises `RequestError` 405 for any other method."""
    if method not in allowed:
        raise RequestError("the method is not allowed here", status=405, value=method[:32],
                           rule=" or ".join(allowed))  # fmt: skip


def whole(text: str, where: str) -> int:
    """The number in a header; raises `RequestError` naming it."""
    if not (text.isascii() and text.isdigit() and len(text) < 16):
        raise RequestError("the length is no whole number", value=text[:64], where=where)
    return int(text)


def deadline_of(exchange: Exchange, timeout: float | None) -> float:
    """When nobody waits for the answer any more: the nearer of the header's and the protocol's timeout."""
    text = exchange.headers(TIMEOUT)
    if text is not None:
        number = int(text) if text.isascii() and text.isdigit() and len(text) < 12 else 0
        if not 1 <= number <= LONGEST_MS:
            raise RequestError("the timeout is wrong", value=text[:64], where="X-Request-Timeout-Ms",
                               rule=f"milliseconds, a whole number from 1 to {LONGEST_MS}")  # fmt: skip
        timeout = number / 1000 if timeout is None else min(timeout, number / 1000)
    return inf if timeout is None else exchange.started + timeout
