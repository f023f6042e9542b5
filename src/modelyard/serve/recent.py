"""Which ids were seen lately, in bounded memory."""

from __future__ import annotations


class Recent:
    """Remembers at least the last `size` ids and at most twice as many.

    >>> seen = Recent(2)
    >>> for text in "abcde": seen.add(text)
    >>> "a" in seen, "d" in seen, "d.7" in seen
    (False, True, True)
    """

    def __init__(self, size: int = 65_536) -> None:
        self._size = size
        self._young: set[str] = set()
        self._old: set[str] = set()

    def add(self, identity: str) -> None:
        """Remembers an id."""
        self._young.add(identity)
        if len(self._young) >= self._size:
            self._old = self._young
            self._young = set()

    def __contains__(self, identity: str) -> bool:
        """Whether the id of a request, or of one of its items (`<request>.<i>`), is remembered."""
        if identity in self._young or identity in self._old:
            return True
        request, _, item = identity.rpartition(".")
        return item.isdigit() and (request in self._young or request in self._old)
