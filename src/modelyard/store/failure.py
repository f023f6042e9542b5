"""What a database's own exceptions mean, in our words and without any credential."""

from __future__ import annotations

import re
import sqlite3
from typing import Any

from modelyard.core.errors import StoreBusy, StoreError

_USERINFO = re.compile(r"//[^\s/@]*@")
_PASSWORD = re.compile(r"(password\s*=\s*)\S+", re.IGNORECASE)

# The low byte of SQLite's result code says the kind (https://sqlite.org/rescode.html).
_SQLITE = {
    sqlite3.SQLITE_FULL: ("the disk is full", "free some space, then run again"),
    sqlite3.SQLITE_IOERR: ("the disk cannot be read or written", "check the disk's space and health"),
    sqlite3.SQLITE_READONLY: ("the database may not be written", "check the rights of the file and folder"),
    sqlite3.SQLITE_PERM: ("the database may not be opened", "check the rights of the file and folder"),
    sqlite3.SQLITE_CANTOPEN: ("the database cannot be opened", "check that its folder exists and its rights"),
    sqlite3.SQLITE_CORRUPT: ("the database file is damaged", "restore it from a backup"),
    sqlite3.SQLITE_NOTADB: ("the file is no SQLite database", "name another file, or restore a backup"),
}

# SQLSTATE classes and codes (https://www.postgresql.org/docs/current/errcodes-appendix.html).
_POSTGRES = {
    "53100": ("the database server's disk is full", "free some space on it, then run again"),
    "53300": ("the database server takes no more connections", "raise its max_connections"),
    "42501": ("the login lacks a right on the database", "grant it create, select, insert and update"),
    "25006": ("the database server only reads (a standby?)", "name its primary in the records URL"),
    "08": ("the connection to the database server broke", "run again when it is up"),
    "57P": ("the database server is shutting down or starting", "run again when it is up"),
}

_OTHER = ("the database refused the work", "see the value for the database's words")


def failure(error: BaseException, place: str, wait: float) -> StoreError:
    """The `StoreError` (or `StoreBusy`) that tells what a driver's or SQLAlchemy's exception means.

    `place` names the database without credentials; `wait` is how long locks were waited for.
    """
    cause: Any = getattr(error, "orig", None) or error
    if _is_busy(cause):
        return StoreBusy(
            "another process is writing to the store",
            value=place,
            rule=f"the writer's lock is waited for {wait:g} s",
            fix="wait for the other command to end, or stop it",
        )
    what, fix = _meaning(cause)
    first = str(cause).strip().splitlines()
    return StoreError(what, value=without_secrets(first[0] if first else ""), fix=fix, where=place)


def without_secrets(text: str) -> str:
    """A text in which no URL keeps its user and password.

    >>> without_secrets("cannot reach postgresql://me:secret@host/db password=secret")
    'cannot reach postgresql://***@host/db password=***'
    """
    return _PASSWORD.sub(r"\1***", _USERINFO.sub("//***@", text))


def is_missing_table(error: BaseException) -> bool:
    """Whether a query failed because its table is not there."""
    cause: Any = getattr(error, "orig", None)
    if isinstance(cause, sqlite3.OperationalError):
        return "no such table" in str(cause)
    return getattr(cause, "sqlstate", None) == "42P01"


def _is_busy(cause: Any) -> bool:
    code = getattr(cause, "sqlite_errorcode", 0) & 0xFF
    return (
        code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
        or getattr(cause, "sqlstate", None) in ("55P03", "40P01", "40001")
        # SQLAlchemy's pool: every connection of this process is in use.
        or type(cause).__name__ == "TimeoutError"
    )


def _meaning(cause: Any) -> tuple[str, str]:
    if isinstance(cause, UnicodeDecodeError):
        return _SQLITE[sqlite3.SQLITE_CORRUPT]
    if isinstance(cause, sqlite3.Error):
        return _SQLITE.get(getattr(cause, "sqlite_errorcode", 0) & 0xFF, _OTHER)
    state = getattr(cause, "sqlstate", None)
    if state is not None:
        known = [state[:length] for length in (5, 3, 2) if state[:length] in _POSTGRES]
        return _POSTGRES[known[0]] if known else _OTHER
    if "FATAL:" in str(cause):
        # While it connects, the driver keeps the server's words but not their code.
        return "the database server refuses the login", "check user, password and database in the records URL"
    return "the database server cannot be reached", "start it, or correct host and port in the records URL"
