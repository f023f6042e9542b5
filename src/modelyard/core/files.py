"""Files that are either whole or absent, and paths that cannot leave their folder."""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from modelyard.core.errors import StoreBusy, StoreError
from modelyard.core.poll import until


def write_atomic(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Writes a file so that a reader, or a crash at any moment, sees the old bytes or the new, never a part.

    The bytes are on disk (fsync of file and folder) when this returns. A full disk or a missing right
    raises `StoreError` and leaves the old file as it was.
    """
    name: str | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(mode)
        Path(name).replace(path)
        sync_folder(path.parent)
    except OSError as error:
        raise StoreError(
            f"cannot write {path}",
            value=error.strerror or str(error),
            fix="free some space or check the folder's rights, then run again",
        ) from error
    finally:
        if name is not None:
            Path(name).unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Makes a folder's entries durable (a rename is not, until its folder is synced)."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def inside(root: Path, name: str) -> Path:
    """The path of `name` under `root`; refuses absolute names, `..`, backslashes and symbolic links.

    Raises `ValueError`, before anything is touched, when the name could lead out of `root`.
    """
    pure = PurePosixPath(name)
    if not name or "\\" in name or "\0" in name or pure.is_absolute() or ".." in pure.parts:
        raise ValueError(f"{name!r} is not a plain relative name")
    path = root.joinpath(*pure.parts)
    walked = root
    for part in pure.parts:
        walked = walked / part
        if walked.is_symlink():
            raise ValueError(f"{name!r} passes through a symbolic link")
    return path


@contextmanager
def file_lock(path: Path, *, wait: float = 30.0, what: str = "the store", holder: str = "") -> Iterator[None]:
    """Holds an advisory lock on a file; the kernel lets go of it when the process dies, however it dies.

    Raises `StoreBusy` when another process still holds it after `wait` seconds, and `StoreError` where
    the file cannot be made. What is given as `holder` is what the others are told: who has it.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise StoreError(
            f"cannot write {path}", value=error.strerror or str(error), fix="check the folder's rights"
        ) from error
    try:
        if not until(lambda: _locks(handle), wait, every=0.01):
            other = os.pread(handle, 200, 0).decode(errors="replace") if holder else ""
            raise StoreBusy(
                f"{what} is locked by {other or 'another process'}",
                value=str(path),
                rule=f"a lock is waited for {wait:g} s",
                fix="wait for the other command to end, or stop it",
            )
        if holder:
            os.ftruncate(handle, 0)
            os.pwrite(handle, holder.encode(), 0)
        yield
    finally:
        os.close(handle)


def _locks(handle: int) -> bool:
    """Whether the lock could be had at once."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
