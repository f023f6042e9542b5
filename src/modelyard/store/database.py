"""The one door to SQLite and PostgreSQL: connections, transactions, migrations, errors in our own words."""

from __future__ import annotations


class Database:
    """A database by SQLAlchemy URL. Nothing is imported or connected before it is first used."""

    def __init__(self, url: str, *, wait: float = 30.0) -> None:
        self._url = url
        self._wait = wait

    def close(self) -> None:
        """Lets go of every connection."""
