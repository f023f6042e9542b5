"""A request's line and headers, and the heads that were seen before."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from modelyard.serve.exchange import Headers

_LONGEST = 2_048
_MOST = 4_096


class Head(msgspec.Struct, frozen=True, gc=False):
    """What a request says before its body."""

    method: str
    path: str
    """Of the target, percent-decoded, without the query."""
    headers: Headers
    length: int
    """Bytes of the body that were announced; 0 where none is, -1 where only its end will tell."""
    keep: bool
    """Whether the client wants the connection to stay."""
    old: bool
    """Whether it speaks HTTP/1.0."""


class KnownHeads:
    """Heads by their bytes: clients send the same ones again and again, and need not be parsed each time.

    Only a head that a parser took, and whose body it ended where the announced length says, may be added.
    The same bytes then mean the same request, framed the same way. Memory is bounded.
    """

    __slots__ = ("_heads", "find")

    def __init__(self) -> None:
        self._heads: dict[bytes, Head] = {}
        self.find = self._heads.get

    def add(self, text: bytes, head: Head) -> None:
        """Remembers a head with the empty line that ends it."""
        if len(text) <= _LONGEST:
            if len(self._heads) >= _MOST:
                self._heads.clear()
            self._heads[text] = head
