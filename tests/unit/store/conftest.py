"""Both databases for every test of records and ledger; a missing PostgreSQL is a failure, never a skip."""

from __future__ import annotations

import importlib.util
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from modelyard.store.database import Database


def _load_tool(name: str) -> ModuleType:
    path = Path(__file__).parents[3] / "tools" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"tools_{name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def postgres_tool() -> ModuleType:
    return _load_tool("postgres")


@pytest.fixture(scope="session")
def postgres(postgres_tool: ModuleType) -> Iterator[Any]:
    """One real server for the whole session."""
    with postgres_tool.running() as server:
        yield server


@pytest.fixture
def postgres_url(postgres: Any) -> Iterator[str]:
    """The URL of an empty schema of its own: much quicker to make than a database."""
    import psycopg

    schema = "t" + secrets.token_hex(6)
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute(f"CREATE SCHEMA {schema}")
        yield f"{postgres.url}?options=-csearch_path%3D{schema}"
        # Whoever a failed test left behind must not keep the schema locked.
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'"
        )
        connection.execute(f"DROP SCHEMA {schema} CASCADE")


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database of each kind in turn."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'records.db'}"
    return str(request.getfixturevalue("postgres_url"))


@pytest.fixture
def make_database(url: str) -> Iterator[Callable[..., Database]]:
    """Makes `Database`s on the test's URL, as another process would, and closes them at the end."""
    made: list[Database] = []

    def make(**options: Any) -> Database:
        made.append(Database(url, **options))
        return made[-1]

    yield make
    for database in made:
        database.close()


@pytest.fixture
def database(make_database: Callable[..., Database]) -> Database:
    return make_database()
