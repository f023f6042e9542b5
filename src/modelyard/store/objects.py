"""Blobs by the digest of their content: written once, never changed, verified whenever they are read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from modelyard.core.digest import Digest


class ObjectStore(Protocol):
    """Where blobs live. Safe to use from many threads and processes at once.

    Every failure to reach, read or write the place is a `StoreError` whose text holds no credential.
    `tests/contracts/test_object_store.py` is the contract; each implementation passes it.
    """

    def put(self, data: bytes) -> Digest:
        """Stores some bytes and returns their digest; storing the same bytes again changes nothing.

        The object is durable and whole when this returns; a crash before that leaves nothing that
        `has`, `get` or `digests` would show.
        """
        ...

    def get(self, digest: Digest) -> bytes:
        """The bytes of that digest, verified on the way.

        Raises `ObjectMissing` when there are none, `ObjectCorrupt` when what is there has another
        digest, and `ValueError` when the text is no digest at all.
        """
        ...

    def has(self, digest: Digest) -> bool:
        """Whether an object of that digest is there (its bytes are verified only by `get`)."""
        ...

    def digests(self) -> Iterator[Digest]:
        """The digests of all objects, in ascending order."""
        ...
