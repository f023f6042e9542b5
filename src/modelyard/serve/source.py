"""Where policies and releases come from: the store, behind a door that tests can stand in for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from modelyard.core.digest import Digest
from modelyard.core.errors import StoreError
from modelyard.release.bundle import Bundle
from modelyard.release.key import TrustedKey
from modelyard.release.policy import Policy

if TYPE_CHECKING:
    from modelyard.release.endpoint import Endpoints
    from modelyard.release.registry import Registry
    from modelyard.store.store import Store


class Source(Protocol):
    """What the follower asks; called from its thread only."""

    def policy(self, endpoint: str) -> tuple[int, Policy]:
        """The endpoint's generation and policy; `StoreError` when the store does not answer."""
        ...

    def fetch(self, release: Digest) -> Bundle:
        """A release's files, verified; `StoreError` when the store does not answer."""
        ...

    def close(self) -> None:
        """Lets go of every connection; the next question opens them again."""
        ...


class StoreSource:
    """The project's store, opened when first asked and only ever read."""

    def __init__(
        self,
        root: Path,
        keys: Sequence[TrustedKey],
        *,
        records: str | None = None,
        objects: str | None = None,
    ) -> None:
        self._root = root
        self._keys = tuple(keys)
        self._records = records
        self._objects = objects
        self._opened: tuple[Store, Endpoints, Registry] | None = None

    def policy(self, endpoint: str) -> tuple[int, Policy]:
        state = self._open()[1].show(endpoint)
        return state.generation, state.policy

    def fetch(self, release: Digest) -> Bundle:
        registry = self._open()[2]
        return registry.fetch(registry.by_digest(release))

    def close(self) -> None:
        if self._opened is not None:
            self._opened[0].close()
            self._opened = None

    def _open(self) -> tuple[Store, Endpoints, Registry]:
        # Opening would begin a new store where the old one was lost, and an open SQLite file reads on
        # after it was removed: the file itself must be there.
        if self._records is None and not (self._root / "records.db").exists():
            raise StoreError("there is no store", value=str(self._root), fix="restore it from a backup")
        if self._opened is None:
            # Imported here: the server answers from its snapshot before the database's library is loaded.
            from modelyard.release.endpoint import Endpoints
            from modelyard.release.registry import Registry
            from modelyard.store.store import open_store

            store = open_store(self._root, records=self._records, objects=self._objects, wait=5.0)
            self._opened = (store, Endpoints(store), Registry(store, self._keys))
        return self._opened
