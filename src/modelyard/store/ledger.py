"""The append-only, hash-chained ledger: what every gate, canary, alarm and score reads."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from modelyard.core.clock import SYSTEM_CLOCK, Clock, iso
from modelyard.core.digest import JSON, canonical, finite
from modelyard.core.errors import LedgerBroken
from modelyard.measure.measurement import Verdict
from modelyard.store.entry import (
    GENESIS,
    Entry,
    changed,
    check_link,
    hash_of,
    line_of,
    sealed,
    verify_export,
)

if TYPE_CHECKING:
    from modelyard.store.database import Database

__all__ = ["Entry", "Ledger", "verify_export"]

_PAGE = 5000


class Ledger:
    """Entries in the records' database. The law of the chain stands in `modelyard.store.entry`.

    One writer at a time across threads and processes; readers never wait. Triggers in the database
    refuse to change or delete an entry, the chain shows it when somebody does so all the same, and every
    entry that is read is checked against its own hash.
    """

    def __init__(self, database: Database, clock: Clock = SYSTEM_CLOCK) -> None:
        self._database = database
        self._clock = clock

    def __repr__(self) -> str:
        return f"Ledger({self._database.place!r})"

    def append(
        self,
        subject: str,
        claim: str,
        *,
        passed: bool | None = None,
        body: Mapping[str, Any] | None = None,
        by: str,
    ) -> Entry:
        """Adds one entry and returns it, durable: no crash from then on loses it.

        `body` is JSON; numbers in it that are not finite become strings. Raises `StoreBusy` when another
        writer keeps the lock too long, `StoreError` when the database cannot take it (then nothing of it
        is there), `ValueError` or `TypeError` when an argument cannot be an entry.
        """
        from sqlalchemy import insert, select, update

        from modelyard.store.tables import LEDGER, LEDGER_HEAD

        for name, text in (("subject", subject), ("claim", claim), ("by", by)):
            if not text or not text.isprintable():
                raise ValueError(f"{name} is {text!r}; it must be printable text")
        if passed is not None and not isinstance(passed, bool):
            raise ValueError(f"passed is {passed!r}; it must be True, False or None")
        # What is stored is what is returned: tuples become lists, numpy floats plain ones.
        stored: dict[str, JSON] = json.loads(canonical(finite(dict(body or {}))))
        with self._database.writing() as connection:
            newest = connection.execute(
                select(LEDGER_HEAD.c.number, LEDGER_HEAD.c.hash).with_for_update()
            ).one_or_none()
            if newest is None:
                raise LedgerBroken("the ledger's head is missing, so nothing can be added to it")
            entry = sealed(
                index=newest.number + 1,
                time=iso(self._clock.now()),
                subject=subject,
                claim=claim,
                passed=passed,
                body=stored,
                by=by,
                previous=newest.hash,
            )
            connection.execute(
                insert(LEDGER).values(
                    number=entry.index,
                    time=entry.time,
                    subject=subject,
                    claim=claim,
                    passed=passed,
                    body=canonical(stored).decode(),
                    by=by,
                    previous=entry.previous,
                    hash=entry.hash,
                )
            )
            connection.execute(update(LEDGER_HEAD).values(number=entry.index, hash=entry.hash))
        return entry

    def append_verdict(self, subject: str, verdict: Verdict, *, by: str) -> Entry:
        """Adds a verdict: its claim, whether it passed, and all of it as the body."""
        return self.append(subject, verdict.claim, passed=verdict.passed, body=verdict.to_json(), by=by)

    def entries(
        self,
        *,
        subject: str | None = None,
        claim: str | None = None,
        prefix: str | None = None,
        after: int = 0,
        limit: int | None = None,
        newest_first: bool = False,
    ) -> list[Entry]:
        """Entries that match every given condition, oldest first unless `newest_first`.

        `claim` is the whole claim, `prefix` its beginning, `after` an index that theirs must exceed.
        Raises `LedgerBroken` when one of them does not have its hash.
        """
        from sqlalchemy import func

        from modelyard.store.tables import LEDGER

        column = LEDGER.c
        query = _selected().where(column.number > after)
        if subject is not None:
            query = query.where(column.subject == subject)
        if claim is not None:
            query = query.where(column.claim == claim)
        if prefix:
            # The comparison lets the index help; LIKE would fold case on SQLite.
            query = query.where(column.claim >= prefix, func.substr(column.claim, 1, len(prefix)) == prefix)
        query = query.order_by(column.number.desc() if newest_first else column.number)
        if limit is not None:
            query = query.limit(limit)
        with self._database.reading() as connection:
            return [_entry(row) for row in connection.execute(query)]

    def head(self) -> Entry | None:
        """The newest entry, or `None` while there is none."""
        found = self.entries(newest_first=True, limit=1)
        return found[0] if found else None

    def verify(self) -> int:
        """Checks the whole chain and that it ends in the known head; returns how many entries it has.

        Reads in a stream, so its memory does not grow with the ledger. Raises `LedgerBroken` that names
        the first entry that was changed, lost, put in or moved.
        """
        from sqlalchemy import select

        from modelyard.store.tables import LEDGER, LEDGER_HEAD

        index, previous = 0, GENESIS
        with self._database.reading() as connection:
            newest = connection.execute(select(LEDGER_HEAD.c.number, LEDGER_HEAD.c.hash)).one_or_none()
            query = _selected().order_by(LEDGER.c.number)
            with connection.execution_options(yield_per=_PAGE).execute(query) as rows:
                for row in rows:
                    index += 1
                    if _hash(row) != row[8]:
                        raise changed(row[0])
                    if row[0] != index or row[7] != previous:
                        check_link(index, previous, row[0], row[7])
                    previous = row[8]
        if newest is None:
            raise LedgerBroken("the ledger's head is missing")
        if newest.number > index:
            raise LedgerBroken(f"entry {index + 1} is missing, and all after it up to {newest.number}")
        if (newest.number, newest.hash) != (index, previous):
            raise LedgerBroken(f"entry {newest.number + 1} was put in: the known head is {newest.number}")
        return index

    def export(self) -> Iterator[str]:
        """Every entry as one line of canonical JSON (without the newline), for `verify_export` or others.

        The lines are given as they are stored, right or wrong: a broken ledger can be exported to look
        at. Nothing is locked meanwhile; entries that are added during the export may be part of it.
        """
        from modelyard.store.tables import LEDGER

        last = 0
        while True:
            query = _selected().where(LEDGER.c.number > last).order_by(LEDGER.c.number).limit(_PAGE)
            with self._database.reading() as connection:
                rows = connection.execute(query).all()
            for row in rows:
                yield line_of(row[:8], row[8])
            if len(rows) < _PAGE:
                return
            last = rows[-1][0]


def _selected() -> Any:
    from sqlalchemy import select

    from modelyard.store.tables import LEDGER

    column = LEDGER.c
    return select(
        column.number,
        column.time,
        column.subject,
        column.claim,
        column.passed,
        column.body,
        column.by,
        column.previous,
        column.hash,
    )


def _hash(row: Any) -> str | None:
    try:
        return hash_of(row[:8])
    except (TypeError, ValueError, KeyError):
        # A hand that wrote a blob or a lone surrogate changed the entry too.
        return None


def _entry(row: Any) -> Entry:
    if _hash(row) != row[8]:
        raise changed(row[0])
    number, time, subject, claim, passed, body, by, previous, found = row
    return Entry(number, time, subject, claim, passed, json.loads(body), by, previous, found)
