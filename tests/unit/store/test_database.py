"""URLs, secrets, versions and the cost of opening."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, text

from modelyard.core.errors import StoreError
from modelyard.store.database import HEAD, VERSION_TABLE, Database
from modelyard.store.failure import failure, without_secrets
from modelyard.store.ledger import Ledger
from modelyard.store.migrate import scripts
from modelyard.store.records import Records
from modelyard.store.tables import METADATA

SECRET = "hunter2-s3cret"


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("sqlite://", "names no file"),
        ("sqlite:///:memory:", "names no file"),
        ("sqlite:///x.db?mode=ro", "names no file"),
        (f"mysql://me:{SECRET}@host/db", "names no known database: got 'mysql'"),
        (f"me:{SECRET}@host/db", "names no known database: got 'no scheme'"),
        (f"postgresql://me:{SECRET}@host:port/db", "cannot be read"),
        ("records.db", "no scheme"),
    ],
)
def test_urls_that_name_no_database(url: str, message: str) -> None:
    with pytest.raises(StoreError, match=message) as caught:
        Database(url)
    assert SECRET not in "".join(traceback.format_exception(caught.value))
    assert "sqlite:///FILE or postgresql://" in str(caught.value)


def test_secrets_never_show(postgres: Any) -> None:
    wrong = postgres.url.replace(postgres.password, SECRET)
    nowhere = f"postgresql://me:{SECRET}@127.0.0.1:1/db"
    no_host = f"postgresql://me:{SECRET}@no-such-host.invalid/db"
    meanings = {wrong: "refuses the login", nowhere: "cannot be reached", no_host: "cannot be reached"}
    for url, meaning in meanings.items():
        database = Database(url, wait=1.0)
        records, ledger = Records(database), Ledger(database)
        with pytest.raises(StoreError) as caught:
            ledger.verify()
        shown = "".join(traceback.format_exception(caught.value)) + str(caught.value.facts())
        shown += repr(database) + repr(records) + repr(ledger)
        assert SECRET not in shown
        assert "postgresql" in shown
        assert SECRET in records.url
        assert meaning in str(caught.value)


def test_a_database_that_the_server_does_not_have(postgres: Any) -> None:
    database = Database(postgres.url.replace("/postgres", "/nobody-made-this"))
    with pytest.raises(
        StoreError, match=r"refuses the login.*nobody-made-this.*check user, password and database"
    ):
        Records(database).runs()


def test_texts_are_freed_of_secrets() -> None:
    assert without_secrets(f"x://me:{SECRET}@h y") == "x://***@h y"
    assert SECRET not in str(failure(OSError(f"password={SECRET} for x://a:{SECRET}@h"), "place", 1.0))


def test_the_migrations_make_the_tables_that_the_code_uses(database: Database) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.runtime.migration import MigrationContext

    assert scripts().get_current_head() == HEAD
    with database.writing() as connection:
        context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
        assert context.get_current_revision() == HEAD
        assert compare_metadata(context, METADATA) == []


def test_a_store_of_a_newer_version_is_refused(
    database: Database, make_database: Callable[..., Database]
) -> None:
    with database.writing() as connection:
        connection.execute(text(f"UPDATE {VERSION_TABLE} SET version_num = '9999'"))  # noqa: S608 (a constant)
    with pytest.raises(StoreError, match=r"written by a newer Modelyard: got 'version 9999'.*upgrade"):
        Records(make_database()).runs()


def test_a_migration_that_fails_leaves_nothing(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from modelyard.store.migrations.versions import r0001_first as first

    database = Database(url)
    with database._door():
        engine = database._new_engine()
    # Something of the same name is in the way of the last table.
    with engine.connect() as connection, connection.begin():
        connection.execute(text("CREATE TABLE modelyard_ledger_head (other TEXT)"))
    engine.dispose()
    assert first.revision == HEAD
    with pytest.raises(StoreError, match="refused the work"):
        Records(database).runs()
    with database._door():
        engine = database._new_engine()
    with engine.connect() as connection:
        from sqlalchemy import inspect

        assert inspect(connection).get_table_names() == ["modelyard_ledger_head"]
    with engine.connect() as connection, connection.begin():
        connection.execute(text("DROP TABLE modelyard_ledger_head"))
    engine.dispose()
    assert Records(database).runs() == []
    database.close()


def test_names_of_files_that_urls_would_read_otherwise(tmp_path: Path) -> None:
    from modelyard.store.store import open_store

    root = tmp_path / "a b%20c?d#ü"
    store = open_store(root)
    store.records.put_document("k", "x", 1)
    assert (root / "records.db").is_file()
    with create_engine(store.records.url).connect() as connection:
        assert connection.execute(text("SELECT value FROM modelyard_documents")).scalar() == "1"
        engine = connection.engine
    engine.dispose()
    store.close()


def test_opening_waits_for_another_process_that_is_making_the_same_database(tmp_path: Path) -> None:
    """SQLite refuses the switch to its write-ahead log at once while another holds the file."""
    path = tmp_path / "records.db"
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("CREATE TABLE another (one INTEGER)")
    other.execute("BEGIN IMMEDIATE")
    held = threading.Timer(0.5, lambda: other.execute("ROLLBACK"))
    held.start()
    began = time.monotonic()
    with Database(f"sqlite:///{path}").reading() as connection:
        assert connection.execute(text("PRAGMA journal_mode")).scalar() == "wal"
    assert time.monotonic() - began > 0.3
    held.join()
    other.close()


def test_opening_loads_nothing_heavy_and_a_current_database_no_alembic(tmp_path: Path) -> None:
    program = """
import sys
from pathlib import Path
from modelyard.store.store import open_store
store = open_store(Path(sys.argv[1]))
heavy = {"sqlalchemy", "alembic", "boto3", "psycopg", "numpy"} & set(sys.modules)
store.records.runs()
print(sorted(heavy - {"numpy"}), "alembic" in sys.modules)
store.close()
"""
    answers = [
        subprocess.run(
            [sys.executable, "-c", program, tmp_path], capture_output=True, text=True, check=True
        ).stdout.strip()
        for _ in range(2)
    ]
    assert answers == ["[] True", "[] False"]


@pytest.mark.serial
def test_opening_is_quick(tmp_path: Path) -> None:
    from modelyard.store.store import open_store

    open_store(tmp_path).records.put_document("k", "x", 1)
    times = []
    for _ in range(5):
        start = time.perf_counter()
        store = open_store(tmp_path)
        store.ledger.head()
        times.append(time.perf_counter() - start)
        store.close()
    assert min(times) < 0.1
