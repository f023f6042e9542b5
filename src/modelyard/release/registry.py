"""Versions of releases by name: folded from the ledger's `release.added` entries, bytes in the object store.

A version counts only where it is the next one of its name at its place in the ledger. So two processes
that add at once never get the same version, on any store: the ledger's order decides, the later entry is
void, and its writer tries the next version.
"""

from __future__ import annotations

import builtins
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from modelyard.core.digest import Digest, is_digest, short
from modelyard.core.errors import BundleTampered, ObjectCorrupt, ObjectMissing, ReleaseError
from modelyard.core.names import did_you_mean
from modelyard.release.bundle import LIMITS, Bundle, release_digest, verify_bundle
from modelyard.release.key import TrustedKey

if TYPE_CHECKING:
    from modelyard.store.ledger import Entry
    from modelyard.store.store import Store

ADDED = "release.added"
FORMAT = 1
"""Version of the entry's body; raised when an old reader would misread a new entry."""

_ATTEMPTS = 1000


@dataclass(frozen=True, slots=True)
class Release:
    """One version of a name: its digest, the digests of its files, and what it was made from."""

    name: str
    version: int
    digest: Digest
    files: Mapping[str, Digest]
    created: str
    lineage: Mapping[str, Digest]
    index: int
    """The ledger entry that added it."""


class Registry:
    """The releases of one store. Holds what it has folded so far, all of it derived from the ledger."""

    def __init__(self, store: Store, keys: Sequence[TrustedKey]) -> None:
        self._objects = store.objects
        self._ledger = store.ledger
        self._keys = tuple(keys)
        self._after = 0
        self._names: dict[str, list[Release]] = {}
        self._digests: dict[Digest, Release] = {}

    def next_version(self, name: str) -> int:
        """The version that `add` accepts now: 1 for a new name."""
        self._fold()
        return len(self._names.get(name, [])) + 1

    def add(self, bundle: Bundle, *, by: str = "modelyard") -> Release:
        """Adds a bundle with the next version of its name; adding the same bundle again returns its release.

        Raises `BundleTampered` when it does not verify, `ReleaseError` when another process has taken the
        version since (`publish` builds again then).
        """
        release = self._add(bundle, by)
        if release is None:
            info = bundle.info
            raise ReleaseError(
                f"the version of {info.name!r} is taken or skips one",
                value=info.version,
                rule=f"the next version is {self.next_version(info.name)}",
                fix="build the bundle again with that version",
            )
        return release

    def publish(self, name: str, build: Callable[[int], Bundle], *, by: str = "modelyard") -> Release:
        """Builds with the next version and adds; builds again when another process was first with it."""
        for _ in range(_ATTEMPTS):
            version = self.next_version(name)
            bundle = build(version)
            if (bundle.info.name, bundle.info.version) != (name, version):
                raise ValueError(f"build({version}) made {bundle.info.name!r} {bundle.info.version}")
            release = self._add(bundle, by)
            if release is not None:
                return release
        raise ReleaseError(
            f"no version of {name!r} could be had",
            value=_ATTEMPTS,
            rule="other processes pause now and then",
            fix="run again",
        )

    def get(self, name: str, version: int | None = None) -> Release:
        """A version, the newest by default; `ReleaseError` when there is none."""
        self._fold()
        versions = self._names.get(name)
        if versions is None:
            raise ReleaseError(f"there is no release of {name!r}", fix=did_you_mean(name, self._names))
        if version is None:
            return versions[-1]
        if not 1 <= version <= len(versions):
            raise ReleaseError(
                f"there is no such version of {name!r}",
                value=version,
                rule=f"1 to {len(versions)}",
                fix="list them with: modelyard releases",
            )
        return versions[version - 1]

    def by_digest(self, digest: Digest) -> Release:
        """The release of that digest; `ReleaseError` when there is none."""
        self._fold()
        if digest not in self._digests:
            raise ReleaseError(
                "no release has this digest", value=digest, fix="list the releases with: modelyard releases"
            )
        return self._digests[digest]

    def list(self, name: str | None = None) -> builtins.list[Release]:
        """All releases, or those of one name, in the order in which they were added."""
        self._fold()
        if name is not None:
            return [*self._names.get(name, [])]
        return sorted(self._digests.values(), key=lambda release: release.index)

    def fetch(self, release: Release) -> Bundle:
        """The bundle, verified against the registry and the trusted keys at every call.

        Raises `BundleTampered` naming the file when an object is missing, damaged or not what was signed.
        """
        files = {}
        for name, digest in release.files.items():
            try:
                files[name] = self._objects.get(digest)
            except (ObjectMissing, ObjectCorrupt) as error:
                raise BundleTampered(
                    f"the file {name!r} of {release.name} {release.version} is lost or damaged",
                    where=name,
                    value=short(digest),
                    rule="its object is in the store, whole",
                    fix="restore the object store, or roll back",
                ) from error
        bundle = Bundle(MappingProxyType(files))
        verify_bundle(bundle, self._keys)
        info = bundle.info
        if (bundle.digest, info.name, info.version) != (release.digest, release.name, release.version):
            raise BundleTampered(
                "the bundle is not the release that was asked for",
                where="release.json",
                value=f"{info.name} {info.version}",
                rule=f"{release.name} {release.version}",
                fix="the ledger was tampered with: modelyard ledger verify",
            )
        return bundle

    def _add(self, bundle: Bundle, by: str) -> Release | None:
        verify_bundle(bundle, self._keys)
        info, digest = bundle.info, bundle.digest
        self._fold()
        if digest in self._digests:
            return self._digests[digest]
        if info.version != len(self._names.get(info.name, [])) + 1:
            return None
        for data in bundle.files.values():
            self._objects.put(data)
        # The entry comes last: a crash before it leaves objects that nothing names, never half a release.
        body = {
            "format": FORMAT,
            "name": info.name,
            "version": info.version,
            "created": info.created,
            "files": bundle.digests,
            "lineage": dict(info.lineage),
        }
        self._ledger.append(digest, ADDED, body=body, by=by)
        self._fold()
        return self._digests.get(digest)

    def _fold(self) -> None:
        for entry in self._ledger.entries(claim=ADDED, after=self._after):
            self._after = entry.index
            release = _release(entry)
            if release is None or release.digest in self._digests:
                continue
            versions = self._names.setdefault(release.name, []) if release.version == 1 else None
            versions = self._names.get(release.name) if versions is None else versions
            if versions is not None and release.version == len(versions) + 1:
                versions.append(release)
                self._digests[release.digest] = release


def _release(entry: Entry) -> Release | None:
    """The release that an entry adds; `None` for an entry that was not written by `add`."""
    body = entry.body
    try:
        files = {str(name): str(digest) for name, digest in body["files"].items()}  # type: ignore[union-attr]
        lineage = {str(part): str(digest) for part, digest in body["lineage"].items()}  # type: ignore[union-attr]
        release = Release(
            name=str(body["name"]),
            version=int(body["version"]),  # type: ignore[arg-type]
            digest=entry.subject,
            files=MappingProxyType(files),
            created=str(body["created"]),
            lineage=MappingProxyType(lineage),
            index=entry.index,
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        return None
    known = body.get("format") == FORMAT and set(files) == set(LIMITS) and all(map(is_digest, files.values()))
    return release if known and release_digest(files) == entry.subject else None
