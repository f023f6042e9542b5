"""The one door to SQLite and PostgreSQL: connections, transactions, migrations, errors in our own words."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from modelyard.core.errors import StoreError
from modelyard.core.files import sync_folder
from modelyard.store.failure import failure, is_missing_table

if TYPE_CHECKING:
    from sqlalchemy import URL, Connection, Engine

HEAD = "0001"
"""The newest migration. A database is brought to it when first used; a test holds it equal to Alembic's."""

VERSION_TABLE = "modelyard_version"
"""Not Alembic's default name, because Optuna keeps its own `alembic_version` in the same database."""

_URL_RULE = "sqlite:///FILE or postgresql://USER:PASSWORD@HOST:PORT/DATABASE"


_OPEN: weakref.WeakSet[Database] = weakref.WeakSet()


class Database:
    """A database by URL: `sqlite:///FILE` (WAL, every commit synced) or `postgresql://...` (psycopg).

    Nothing is imported, connected or made before the first transaction, which also brings the tables to
    the newest version. Safe from many threads and processes, and across a `fork` outside transactions.
    A lock is waited for `wait` seconds, then `StoreBusy` is raised; all other failures are `StoreError`.
    No message, `repr` or `place` holds a user's name or password.
    """

    def __init__(self, url: str, *, wait: float = 30.0) -> None:
        self._wait = wait
        self._lock = threading.Lock()
        self._made: Engine | None = None
        self._inode: tuple[int, int] | None = None
        self._address, self._file, self.place = _parsed(url)
        _OPEN.add(self)

    def __repr__(self) -> str:
        return f"Database({self.place!r})"

    @property
    def url(self) -> str:
        """The SQLAlchemy URL, password included: for other libraries, never for people."""
        return self._sqlalchemy_url().render_as_string(hide_password=False)

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A transaction that sees one state of the database from beginning to end, and writes nothing."""
        with self._transaction("read") as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction that is durable when the block ends, or leaves nothing when it raises.

        On SQLite it holds the one writer's lock from the start; on PostgreSQL rows are locked as usual.
        """
        with self._transaction("write") as connection:
            yield connection

    def close(self) -> None:
        """Lets go of every connection; the database can be used again afterwards."""
        with self._lock:
            if self._made is not None:
                self._made.dispose()

    @contextmanager
    def _transaction(self, mode: str) -> Iterator[Connection]:
        with self._door():
            engine = self._engine()
            self._present()
            with (
                engine.connect().execution_options(modelyard_mode=mode) as connection,
                connection.begin(),
            ):
                yield connection
            if mode == "write":
                # A deleted file still takes commits; they must not be acknowledged.
                self._present()

    @contextmanager
    def _door(self) -> Iterator[None]:
        from sqlalchemy.exc import DBAPIError, SQLAlchemyError
        from sqlalchemy.exc import TimeoutError as PoolTimeout

        try:
            yield
        except (DBAPIError, PoolTimeout, UnicodeDecodeError) as error:
            # UnicodeDecodeError: what Python's sqlite3 makes of a damaged file, even in its own messages.
            # `from None`: SQLAlchemy's own text carries statements and parameters.
            raise failure(error, self.place, self._wait) from None
        except SQLAlchemyError as error:
            raise StoreError(
                f"the database cannot be used ({type(error).__name__})", where=self.place, rule=_URL_RULE
            ) from None

    def _engine(self) -> Engine:
        if self._made is not None:
            return self._made
        with self._lock:
            if self._made is not None:
                return self._made
            engine = self._new_engine()
            try:
                self._bring_to_head(engine)
            except BaseException:
                engine.dispose()
                raise
            if self._file is not None:
                found = self._file.stat()
                self._inode = (found.st_dev, found.st_ino)
            self._made = engine
            return engine

    def _new_engine(self) -> Engine:
        from sqlalchemy import create_engine, event

        if self._file is not None:
            self._make_file(self._file)
            engine = create_engine(
                self._sqlalchemy_url(), connect_args={"timeout": self._wait, "isolation_level": None}
            )
            event.listen(engine, "connect", _set_up_sqlite)
            event.listen(engine, "begin", _begin_sqlite)
            return engine
        from modelyard.core.require import require

        require("psycopg", extra="postgres")
        engine = create_engine(
            self._sqlalchemy_url(),
            pool_pre_ping=True,
            pool_timeout=self._wait,
            connect_args={"connect_timeout": max(2, int(min(self._wait, 10)))},
        )
        milliseconds = max(1, int(self._wait * 1000))

        def set_up(connection: Any, _: object) -> None:
            _set_up_postgres(connection, milliseconds)

        event.listen(engine, "connect", set_up)
        event.listen(engine, "begin", _begin_postgres)
        return engine

    def _make_file(self, file: Path) -> None:
        """Makes the folder and an empty file whose name is durable: its content is synced by SQLite."""
        if file.exists():
            return
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
            sync_folder(file.parent)
        except OSError as error:
            raise StoreError(
                "the database file cannot be made",
                value=error.strerror or str(error),
                where=self.place,
                fix="free some space or check the folder's rights, then run again",
            ) from None

    def _present(self) -> None:
        if self._file is None:
            return
        try:
            found = self._file.stat()
        except OSError:
            found = None
        if found is None or (found.st_dev, found.st_ino) != self._inode:
            raise StoreError(
                "the database file is gone or was replaced while it was in use",
                where=self.place,
                fix="put it back (or restore a backup), then start again",
            )

    def _bring_to_head(self, engine: Engine) -> None:
        found = self._version(engine)
        if found == HEAD:
            return
        if found is not None and found > HEAD:
            raise StoreError(
                "the store was written by a newer Modelyard",
                value=f"version {found}",
                where=self.place,
                rule=f"this Modelyard reads up to version {HEAD}",
                fix="upgrade Modelyard",
            )
        from modelyard.store.migrate import migrate

        migrate(engine, wait=self._wait)

    def _version(self, engine: Engine) -> str | None:
        from sqlalchemy import text
        from sqlalchemy.exc import DBAPIError

        try:
            with engine.connect() as connection:
                found = connection.execute(text(f"SELECT version_num FROM {VERSION_TABLE}")).scalar()  # noqa: S608 (a constant)
                return None if found is None else str(found)
        except DBAPIError as error:
            if is_missing_table(error):
                return None
            raise

    def _sqlalchemy_url(self) -> URL:
        from sqlalchemy import URL, make_url

        if self._file is not None:
            return URL.create("sqlite", database=str(self._file))
        return make_url(self._address)


def _parsed(url: str) -> tuple[str, Path | None, str]:
    """The URL with its driver, the file where there is one, and a name for it without credentials."""
    scheme, _, rest = url.partition("://")
    if scheme in ("sqlite", "sqlite+pysqlite"):
        name = unquote(rest.removeprefix("/"))
        if not rest.startswith("/") or not name or name.startswith(":memory:") or "?" in rest:
            raise StoreError("the records URL names no file", rule=_URL_RULE, fix="give the file a path")
        file = Path(os.path.abspath(name))  # noqa: PTH100 (resolve() would follow links, which may change)
        return "", file, str(file)
    if scheme in ("postgresql", "postgres", "postgresql+psycopg"):
        try:
            parts = urlsplit("postgresql://" + rest)
            place = f"postgresql {parts.hostname or 'local socket'}:{parts.port or 5432}{parts.path}"
        except ValueError:
            raise StoreError("the records URL cannot be read", rule=_URL_RULE) from None
        return "postgresql+psycopg://" + rest, None, place
    known = scheme if scheme.replace("+", "").isalnum() else "no scheme"
    raise StoreError("the records URL names no known database", value=known, rule=_URL_RULE)


def _set_up_sqlite(connection: Any, _: object) -> None:
    # FULL syncs the log at each commit, so that what is acknowledged survives a power cut.
    for pragma in ("synchronous=FULL", "foreign_keys=ON"):
        connection.execute("PRAGMA " + pragma)


def _begin_sqlite(connection: Connection) -> None:
    mode = connection.get_execution_options().get("modelyard_mode")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if mode == "write" else "BEGIN")


def _set_up_postgres(connection: Any, milliseconds: int) -> None:
    # A server may be set up to acknowledge before it syncs, or to isolate otherwise than we count on.
    connection.execute(
        "SELECT set_config('lock_timeout', %s, false),"
        " set_config('default_transaction_isolation', 'read committed', false),"
        " CASE WHEN current_setting('synchronous_commit') IN ('off', 'local')"
        " THEN set_config('synchronous_commit', 'on', false) END",
        (str(milliseconds),),
    )
    connection.commit()


def _begin_postgres(connection: Connection) -> None:
    if connection.get_execution_options().get("modelyard_mode") == "read":
        connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")


def _close_before_fork() -> None:
    """A connection that two processes hold corrupts SQLite and confuses PostgreSQL: none crosses a fork."""
    for database in list(_OPEN):
        database.close()


os.register_at_fork(before=_close_before_fork)
