"""The store as one thing: objects, records and the ledger, opened together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from modelyard.core.clock import SYSTEM_CLOCK, Clock
from modelyard.core.errors import StoreError
from modelyard.store.database import Database
from modelyard.store.folder import FolderObjects
from modelyard.store.ledger import Ledger
from modelyard.store.objects import ObjectStore
from modelyard.store.records import Records


def _nothing() -> None:
    """What a store without a database has to close."""


@dataclass(frozen=True)
class Store:
    """Everything that outlives a command. Safe to share between threads."""

    root: Path
    objects: ObjectStore
    records: Records
    ledger: Ledger
    _close: Callable[[], None] = field(default=_nothing, repr=False, compare=False)

    def close(self) -> None:
        """Lets go of every connection. The store works on afterwards, with new ones."""
        self._close()


def open_store(
    root: Path,
    *,
    records: str | None = None,
    objects: str | None = None,
    clock: Clock = SYSTEM_CLOCK,
    wait: float = 30.0,
) -> Store:
    """The store of a project: made when it is new, upgraded when it is old, both at its first use.

    By default everything lies under `root`: `records.db` (SQLite) and `objects/`. `records` is a URL
    (`sqlite:///FILE`, `postgresql://...`), `objects` a folder or `s3://BUCKET/PREFIX`. Locks are waited for
    `wait` seconds. Opening costs about a millisecond: databases and buckets are reached when first used.

    Raises `StoreError` for a URL that cannot be one, and when `records.db` is gone though there are
    objects: a lost ledger is not silently begun anew.
    """
    root = root.absolute()
    folder = root / "objects"
    if records is None:
        file = root / "records.db"
        if not file.exists() and objects is None and next(FolderObjects(folder).digests(), None):
            raise StoreError(
                f"{file} is missing, and with it the ledger, though the store has objects",
                fix=f"restore it from a backup, or remove {folder} to begin a new store",
            )
        records = "sqlite:///" + quote(str(file))
    database = Database(records, wait=wait)
    return Store(
        root, _objects(objects, folder), Records(database, clock), Ledger(database, clock), database.close
    )


def _objects(spec: str | None, folder: Path) -> ObjectStore:
    if spec is None:
        return FolderObjects(folder)
    scheme, mark, _ = spec.partition("://")
    if not mark:
        return FolderObjects(Path(spec).absolute())
    if scheme == "s3":
        from modelyard.store.s3 import S3Objects

        return S3Objects(spec)
    raise StoreError(
        "the objects URL names no known kind of store", value=scheme, rule="a folder or s3://BUCKET/PREFIX"
    )
