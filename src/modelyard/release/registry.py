"""Versions of releases by name, derived from the ledger's `release.added` entries."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from modelyard.core.digest import Digest
from modelyard.release.bundle import Bundle
from modelyard.release.key import TrustedKey

if TYPE_CHECKING:
    from modelyard.store.store import Store

ADDED = "release.added"


@dataclass(frozen=True, slots=True)
class Release:
    """One version of a name: its digest, the digests of its files, and what it was made from."""

    name: str
    version: int
    digest: Digest
    files: Mapping[str, Digest]
    created: str
    lineage: Mapping[str, Digest]
    index: int = 0
    """The ledger entry that added it."""


class Registry:
    """The releases of one store."""

    def __init__(self, store: Store, keys: Sequence[TrustedKey]) -> None:
        raise NotImplementedError

    def next_version(self, name: str) -> int:
        """The version that `add` will accept now."""
        raise NotImplementedError

    def add(self, bundle: Bundle, *, by: str) -> Release:
        """Adds a bundle whose version is the next one; the identical bundle again returns the same release."""
        raise NotImplementedError

    def publish(self, name: str, build: Callable[[int], Bundle], *, by: str) -> Release:
        """Builds with the next version and adds; builds again when another process took that version."""
        raise NotImplementedError

    def get(self, name: str, version: int | None = None) -> Release:
        """A version, the newest by default."""
        raise NotImplementedError

    def by_digest(self, digest: Digest) -> Release:
        """The release of that digest."""
        raise NotImplementedError

    def list(self, name: str | None = None) -> list[Release]:
        """All releases, oldest first."""
        raise NotImplementedError

    def fetch(self, release: Release) -> Bundle:
        """The bundle, verified against registry and trusted keys at every call."""
        raise NotImplementedError
