"""Brings a database's tables to the newest version with Alembic. Imported only when there is work to do."""

from __future__ import annotations

import sqlite3
import threading
from typing import TYPE_CHECKING, Any

from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.script import ScriptDirectory

from modelyard.core.errors import StoreError
from modelyard.core.poll import until
from modelyard.store.database import VERSION_TABLE

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

# Alembic keeps the migration in progress in module globals: one at a time in a process.
_ONE_AT_A_TIME = threading.Lock()
_ADVISORY_LOCK = 0x6D79_6172_64  # "myard", so that only our own migrations wait for each other


def scripts() -> ScriptDirectory:
    """The migrations that ship inside the package."""
    config = Config()
    config.set_main_option("script_location", "modelyard.store:migrations")
    return ScriptDirectory.from_config(config)


def migrate(engine: Engine, *, wait: float) -> None:
    """Runs the migrations that are missing, all of them or none, while no other process does the same."""
    with _ONE_AT_A_TIME:
        if engine.dialect.name == "sqlite":
            _use_write_ahead_log(engine, wait)
        with engine.connect().execution_options(modelyard_mode="write") as connection, connection.begin():
            if engine.dialect.name == "postgresql":
                connection.exec_driver_sql("SELECT pg_advisory_xact_lock(%s)", (_ADVISORY_LOCK,))
            _upgrade(connection)


def _upgrade(connection: Connection) -> None:
    directory = scripts()

    def steps(found: Any, _: object) -> list[Any]:
        # What `alembic upgrade head` runs; an env.py would do the same and could not be imported by itself.
        return list(directory._upgrade_revs("head", found))

    environment = EnvironmentContext(Config(), directory, fn=steps, destination_rev="head")
    with environment:
        # One transaction, opened above: SQLite's DDL is transactional once we send BEGIN ourselves.
        environment.configure(connection=connection, version_table=VERSION_TABLE, transactional_ddl=True)
        environment.run_migrations()


def _use_write_ahead_log(engine: Engine, wait: float) -> None:
    """Switches the file to WAL, which is then kept in the file; SQLite does not wait for this lock itself."""
    from sqlalchemy.exc import OperationalError

    def switched() -> str:
        connection = engine.raw_connection()
        try:
            return str(connection.cursor().execute("PRAGMA journal_mode=WAL").fetchone()[0])
        finally:
            connection.close()

    # The cursor is the driver's own, and so are its errors.
    locked = (OperationalError, sqlite3.OperationalError)

    def unless_locked() -> str:
        try:
            return switched()
        except locked:
            return ""

    mode = until(unless_locked, wait, every=0.01) or switched()
    if mode != "wal":
        raise StoreError(
            "the database's disk does not support SQLite's write-ahead log",
            value=f"journal mode {mode}",
            rule="a local disk",
            fix="put the store on a local disk, or use PostgreSQL",
        )
