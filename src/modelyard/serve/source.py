"""Where policies and releases come from: the store, behind a door that tests can stand in for."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from modelyard.core.digest import Digest
from modelyard.core.errors import ReleaseError, StoreError
from modelyard.core.names import did_you_mean
from modelyard.release.bundle import Bundle
from modelyard.release.key import TrustedKey
from modelyard.release.policy import Policy

if TYPE_CHECKING:
    from modelyard.release.endpoint import Endpoints
    from modelyard.release.registry import Registry
    from modelyard.store.store import Store


class Source(Protocol):
    """What the follower and the loader ask, each from its own thread."""

    def changed(self) -> frozenset[str]:
        """The endpoints that the store speaks of since the last call, all at first; one query when none.

        Raises `StoreError` when the store does not answer.
        """
        ...

    def policy(self, endpoint: str) -> tuple[int, Policy]:
        """The endpoint's generation and policy as `changed` found them; `ReleaseError` for no endpoint."""
        ...

    def fetch(self, release: Digest) -> Bundle:
        """A release's files, verified; `StoreError` when the store does not answer."""
        ...

    def close(self) -> None:
        """Lets go of every connection; the next question opens them again."""
        ...


_RACY_NS = 100_000_000


class StoreSource:
    """The project's store, opened when first asked and only ever read; asked from one thread at a time."""

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
        self._asking = threading.Lock()
        self._names: set[str] = set()
        self._seen: tuple[int, ...] = ()

    def changed(self) -> frozenset[str]:
        with self._asking:
            stamp = self._stamp()
            if stamp and stamp == self._seen:
                return frozenset()
            names = self._open()[1].catch_up()
            self._names |= names
            self._seen = stamp
            return names

    def policy(self, endpoint: str) -> tuple[int, Policy]:
        with self._asking:
            state = self._open()[1].known(endpoint)
            if state is None:
                hint = did_you_mean(endpoint, self._names)
                raise ReleaseError(f"there is no endpoint {endpoint!r}", fix=hint)
            return state.generation, state.policy

    def fetch(self, release: Digest) -> Bundle:
        with self._asking:
            registry = self._open()[2]
            found = registry.by_digest(release)
        # Objects are read by any number of threads; a large one must not hold up the look at the ledger.
        return registry.fetch(found)

    def close(self) -> None:
        with self._asking:
            if self._opened is not None:
                self._opened[0].close()
                self._opened = None

    def _stamp(self) -> tuple[int, ...]:
        """What tells of the database's files whether anything was written since; nothing when that is unsure.

        A look at two files costs a hundredth of a question. A file that was written a moment ago might be
        written again without a trace, within one tick of the file system's clock.
        """
        if self._records is not None:
            return ()
        found: list[int] = []
        for name in ("records.db", "records.db-wal"):
            try:
                file = (self._root / name).stat()
            except OSError:
                if name == "records.db":
                    return ()
                found.append(0)
                continue
            if time.time_ns() - file.st_mtime_ns < _RACY_NS:
                return ()
            found += [file.st_ino, file.st_mtime_ns, file.st_size]
        return tuple(found)

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
