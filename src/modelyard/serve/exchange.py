"""One request and where its reply goes, without an HTTP library."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

import msgspec

JSON_TYPE = "application/json"
BINARY_TYPE = "application/octet-stream"

Headers = Callable[[str], str | None]
"""The value of a request header by its lower-case name."""


class Reply(Protocol):
    """Takes a request's one reply; called on the event loop's thread, maybe after `handle` has returned."""

    def __call__(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None: ...


class Exchange(msgspec.Struct, frozen=True, gc=False):
    """One request under way: what came, since when (monotonic), and where the reply goes."""

    headers: Headers
    body: bytes
    started: float
    reply: Reply


class Written(NamedTuple):
    """The body of an answer in the words of some protocol."""

    body: bytes
    kind: str = JSON_TYPE
    headers: tuple[tuple[str, str], ...] = ()
