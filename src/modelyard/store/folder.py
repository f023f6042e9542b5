"""Objects in a folder: one file each, named by its digest."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from modelyard.core.digest import Digest, digest_bytes, is_digest
from modelyard.core.errors import ObjectCorrupt, ObjectMissing, StoreError
from modelyard.core.files import sync_folder, write_atomic

_SHARD = re.compile(r"[0-9a-f]{2}\Z")
_REST = re.compile(r"[0-9a-f]{62}\Z")


class FolderObjects:
    """An `ObjectStore` in a folder: `<first two hex digits>/<the other 62>`, read-only files.

    Files appear whole or not at all (a process killed in the middle leaves at most a hidden `.part`
    file, which nothing reads). Putting an object whose file was damaged writes it anew.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def __repr__(self) -> str:
        return f"FolderObjects({str(self._root)!r})"

    def put(self, data: bytes) -> Digest:
        digest = digest_bytes(data)
        path = self._path(digest)
        try:
            if path.is_file() and path.read_bytes() == data:
                # Whoever wrote it may have died before this.
                sync_folder(path.parent)
                return digest
            if not path.parent.is_dir():
                path.parent.mkdir(parents=True, exist_ok=True)
                sync_folder(self._root)
            write_atomic(path, data, mode=0o444)
        except OSError as error:
            raise self._failure("an object cannot be written", error) from error
        return digest

    def get(self, digest: Digest) -> bytes:
        path = self._path(digest)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            raise missing(digest, str(self._root)) from None
        except OSError as error:
            raise self._failure("an object cannot be read", error) from error
        return verified(data, digest, str(self._root))

    def has(self, digest: Digest) -> bool:
        return self._path(digest).is_file()

    def digests(self) -> Iterator[Digest]:
        try:
            for shard in _sorted(self._root, _SHARD):
                for file in _sorted(shard, _REST):
                    yield f"sha256:{shard.name}{file.name}"
        except OSError as error:
            raise self._failure("the objects cannot be listed", error) from error

    def _path(self, digest: Digest) -> Path:
        name = hex_of(digest)
        return self._root / name[:2] / name[2:]

    def _failure(self, what: str, error: OSError) -> StoreError:
        return StoreError(
            what,
            value=error.strerror or str(error),
            where=str(self._root),
            fix="free some space or check the folder's rights, then run again",
        )


def hex_of(digest: Digest) -> str:
    """The 64 hex digits of a digest; `ValueError` when the text is none, so no name can lead elsewhere."""
    if not is_digest(digest):
        raise ValueError(f"{digest!r} is not a digest: sha256: and 64 lower-case hex digits")
    return digest.removeprefix("sha256:")


def verified(data: bytes, digest: Digest, place: str) -> bytes:
    """The bytes, when they have that digest; raises `ObjectCorrupt` otherwise."""
    found = digest_bytes(data)
    if found != digest:
        raise ObjectCorrupt(
            f"the object {digest} is damaged",
            value=found,
            where=place,
            fix="put the original again, or restore it from a backup",
        )
    return data


def missing(digest: Digest, place: str) -> ObjectMissing:
    """The error for an object that is not there."""
    return ObjectMissing("no such object", value=digest, where=place, fix="run the step that makes it again")


def _sorted(folder: Path, pattern: re.Pattern[str]) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if pattern.match(path.name))
