"""A release as bytes: the fixed list of signed files, written to and read from a folder.

The order is always the same: read within bounds, check names, check the signature, and only then parse.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from modelyard.core.digest import Digest, digest_bytes, digest_json
from modelyard.core.errors import BundleTampered, ReleaseError
from modelyard.core.files import sync_folder
from modelyard.release.info import ReleaseInfo
from modelyard.release.key import TrustedKey
from modelyard.release.sign import SIGNATURE, SIGNATURE_MAX, verify
from modelyard.release.strict_json import parse_object

LIMITS: Mapping[str, int] = MappingProxyType(
    {
        "release.json": 1 << 20,
        "model.onnx": 1 << 30,
        "contract.json": 8 << 20,
        "profile.json": 64 << 20,
        "requirements.json": 1 << 20,
        "evidence.jsonl": 64 << 20,
        "answers.json": 64 << 20,
        SIGNATURE: SIGNATURE_MAX,
    }
)
"""Every file of a bundle, all of them required, with the most bytes that are read of it."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """The files of one release by name. Only `read_bundle`, `Registry.fetch` and `build_bundle` make
    bundles whose signature was checked or made on the spot."""

    files: Mapping[str, bytes]

    @property
    def digests(self) -> dict[str, Digest]:
        """The digest of each file, by name in order."""
        return {name: digest_bytes(data) for name, data in sorted(self.files.items())}

    @property
    def digest(self) -> Digest:
        """The release's digest; see `release_digest`."""
        return release_digest(self.digests)

    @property
    def info(self) -> ReleaseInfo:
        """What `release.json` says; raises `ReleaseError` when it cannot be read."""
        where = "release.json"
        return ReleaseInfo.from_json(parse_object(self.files[where], where=where, error=ReleaseError))


def release_digest(digests: Mapping[str, Digest]) -> Digest:
    """One digest over names and digests of all files but the signature, which only vouches for the rest."""
    return digest_json([[name, digests[name]] for name in sorted(digests) if name != SIGNATURE])


def verify_bundle(bundle: Bundle, keys: Sequence[TrustedKey]) -> TrustedKey:
    """Checks names, sizes and signature; returns the key that signed, raises `BundleTampered` otherwise."""
    check_names(bundle.files)
    for name, data in bundle.files.items():
        if len(data) > LIMITS[name]:
            raise _too_large(name, len(data))
    return verify(bundle.files, bundle.files[SIGNATURE], keys)


def check_names(names: Mapping[str, object] | Sequence[str]) -> None:
    """Raises `BundleTampered`, naming the file, unless these are exactly a bundle's files."""
    for name in sorted(set(names) - set(LIMITS)):
        raise BundleTampered(
            f"the file {name!r} does not belong in a bundle",
            where=name,
            rule="only " + ", ".join(LIMITS),
            fix="get the release again",
        )
    for name in LIMITS:
        if name not in names:
            raise BundleTampered(
                f"the file {name!r} is missing from the bundle",
                where=name,
                rule="all of " + ", ".join(LIMITS),
                fix="get the release again",
            )


def read_bundle(folder: Path, keys: Sequence[TrustedKey]) -> Bundle:
    """Reads a folder and returns the bundle only if a trusted key signed exactly these files.

    Raises `ReleaseError` when there is no such folder, and `BundleTampered` naming the file for anything
    else: a file too many, missing, too large, changed, a link of either kind, a folder or a device.
    """
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError as error:
        raise ReleaseError(
            "there is no bundle here", where=str(folder), value=error.strerror, rule="a folder, no link"
        ) from error
    try:
        with os.scandir(handle) as found:
            check_names([entry.name for entry in found])
        bundle = Bundle(MappingProxyType({name: _read(handle, name) for name in LIMITS}))
    finally:
        os.close(handle)
    verify_bundle(bundle, keys)
    return bundle


def write_bundle(folder: Path, bundle: Bundle) -> Path:
    """Writes the files into a folder that appears whole or not at all; returns it.

    Writing the same bundle again changes nothing. Raises `ReleaseError` when the folder exists and holds
    anything else, or cannot be written.
    """
    check_names(bundle.files)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}.", suffix=".part"))
        try:
            for name, data in sorted(bundle.files.items()):
                _write(part / name, data)
            part.chmod(0o755)
            sync_folder(part)
            # A folder can only replace an empty one, so that a release is never overwritten.
            part.rename(folder)
            sync_folder(folder.parent)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR) and _holds(folder, bundle):
            return folder
        raise ReleaseError(
            "the bundle cannot be written",
            where=str(folder),
            value=error.strerror,
            rule="a new folder",
            fix="name another folder, or free some space",
        ) from error
    return folder


def _read(handle: int, name: str) -> bytes:
    try:
        # O_NONBLOCK: opening a pipe must not wait for a writer.
        opened = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=handle)
    except OSError as error:
        raise BundleTampered(
            f"the file {name!r} cannot be opened",
            where=name,
            value=error.strerror,
            rule="a plain file, no link",
        ) from error
    try:
        facts = os.fstat(opened)
        if not stat.S_ISREG(facts.st_mode) or facts.st_nlink != 1:
            raise BundleTampered(
                f"the file {name!r} is not a plain file",
                where=name,
                rule="a plain file with one name, no link, pipe or device",
            )
        if facts.st_size > LIMITS[name]:
            raise _too_large(name, facts.st_size)
        with os.fdopen(opened, "rb", closefd=False) as file:
            data = file.read(LIMITS[name] + 1)
    finally:
        os.close(opened)
    if len(data) > LIMITS[name]:
        raise _too_large(name, len(data))
    return data


def _write(path: Path, data: bytes) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    with os.fdopen(handle, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _holds(folder: Path, bundle: Bundle) -> bool:
    try:
        return {path.name: path.read_bytes() for path in folder.iterdir()} == dict(bundle.files)
    except OSError:
        return False


def _too_large(name: str, size: int) -> BundleTampered:
    return BundleTampered(
        f"the file {name!r} is too large", where=name, value=size, rule=f"at most {LIMITS[name]} bytes"
    )
