"""Objects in a folder: one file each, named by its digest."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from modelyard.core.digest import Digest


class FolderObjects:
    """An `ObjectStore` in a folder."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def put(self, data: bytes) -> Digest:
        raise NotImplementedError

    def get(self, digest: Digest) -> bytes:
        raise NotImplementedError

    def has(self, digest: Digest) -> bool:
        raise NotImplementedError

    def digests(self) -> Iterator[Digest]:
        raise NotImplementedError
