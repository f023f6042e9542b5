"""The ledger on SQLite and PostgreSQL: durable, chained, one writer at a time, and unbending."""
# ruff: noqa: S608 (every statement is put together from constants)

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from modelyard.core.clock import ManualClock
from modelyard.core.digest import canonical, digest_bytes, digest_json
from modelyard.core.errors import LedgerBroken, StoreError
from modelyard.measure.measurement import Measurement, Verdict
from modelyard.store.database import Database
from modelyard.store.entry import GENESIS, hash_of, line_of, sealed
from modelyard.store.ledger import Entry, Ledger, verify_export


@pytest.fixture
def ledger(database: Database) -> Ledger:
    return Ledger(database, ManualClock(0.0))


def fill(ledger: Ledger, count: int = 6) -> list[Entry]:
    return [
        ledger.append(
            f"endpoint:e{i % 2}", f"a.{i}", passed=[True, False, None][i % 3], body={"i": i}, by="me"
        )
        for i in range(count)
    ]


def test_an_empty_ledger(ledger: Ledger) -> None:
    assert (ledger.verify(), ledger.head(), ledger.entries(), list(ledger.export())) == (0, None, [], [])
    assert verify_export([]) == 0


def test_entries_come_back_as_they_were_appended(ledger: Ledger) -> None:
    made = fill(ledger)
    assert [entry.index for entry in made] == [1, 2, 3, 4, 5, 6]
    assert made[0].previous == GENESIS
    assert made[1].previous == made[0].hash
    assert made[0].time == "1970-01-01T00:00:00.000000Z"
    assert ledger.entries() == made
    assert ledger.head() == made[-1]
    assert ledger.verify() == 6


def test_what_is_awkward_to_store(ledger: Ledger) -> None:
    body: dict[str, Any] = {
        "nan": float("nan"), "tuple": (1, 2.0), "deep": {"ü": ["\0", '"', "\\", "\n", "\u2028", "😀"]},
        "big": 10**30, "minus": -0.0,
    }  # fmt: skip
    entry = ledger.append("project:ü", 'claim "with" \\ signs', body=body, by="Zoë 😀")
    assert entry.body["nan"] == "nan"
    assert entry.body["tuple"] == [1, 2.0]
    assert ledger.entries() == [entry]
    assert ledger.verify() == 1
    assert verify_export(ledger.export()) == 1


def test_a_verdict_becomes_an_entry(ledger: Ledger) -> None:
    verdict = Verdict("data.1", False, "too few", (Measurement("n", float("nan"), None, None),), 3.0)
    entry = ledger.append_verdict(digest_bytes(b"x"), verdict, by="ci")
    assert (entry.claim, entry.passed) == ("data.1", False)
    again = Verdict.from_json(ledger.entries()[0].body)
    assert (again.why, again.bound) == ("too few", 3.0)


def test_entries_are_chosen_by_every_condition(ledger: Ledger) -> None:
    for claim in ("data.1", "data.10", "Data.1", "data_1", "data%", "model.1"):
        ledger.append("project:a", claim, by="me")
    ledger.append("project:b", "data.1", by="me")

    def claims(**conditions: Any) -> list[str]:
        return [entry.claim for entry in ledger.entries(**conditions)]

    assert claims(prefix="data.") == ["data.1", "data.10", "data.1"]
    assert claims(prefix="data%") == ["data%"]
    assert claims(prefix="") == claims()
    assert claims(claim="data.1", subject="project:b") == ["data.1"]
    assert claims(claim="data") == []
    assert [entry.index for entry in ledger.entries(claim="data.1")] == [1, 7]
    assert [entry.index for entry in ledger.entries(after=5)] == [6, 7]
    assert [entry.index for entry in ledger.entries(newest_first=True, limit=2)] == [7, 6]
    assert [entry.index for entry in ledger.entries(subject="project:a", prefix="data", limit=2)] == [1, 2]


@pytest.mark.parametrize(
    "bad",
    [
        {"subject": ""},
        {"claim": "a\nb"},
        {"by": "\0"},
        {"passed": 1},
        {"body": {"a": object()}},
        {"by": "\ud800"},
    ],
)
def test_what_cannot_be_an_entry_leaves_nothing(ledger: Ledger, bad: dict[str, Any]) -> None:
    arguments: dict[str, Any] = {"subject": "s", "claim": "c", "by": "me", **bad}
    with pytest.raises((ValueError, TypeError)):
        ledger.append(**arguments)
    assert ledger.verify() == 0


def test_the_export_verifies_without_us(ledger: Ledger) -> None:
    import hashlib

    fill(ledger)
    previous = "sha256:" + hashlib.sha256(b"modelyard ledger 1").hexdigest()
    for index, line in enumerate(ledger.export(), start=1):
        entry = json.loads(line)
        stated = entry.pop("hash")
        plain = json.dumps(entry, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        assert stated == "sha256:" + hashlib.sha256(plain.encode()).hexdigest()
        assert (entry["previous"], entry["index"]) == (previous, index)
        previous = stated
    head = ledger.head()
    assert head is not None
    assert previous == head.hash
    assert verify_export((line + "\n" for line in ledger.export()), head=head.hash) == 6


def test_an_export_longer_than_a_page(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modelyard.store.ledger._PAGE", 3)
    for count in (3, 4, 6):
        while (ledger.head() or sealed_first()).index < count or ledger.head() is None:
            fill(ledger, 1)
        assert len(list(ledger.export())) == count == ledger.verify()


def sealed_first() -> Entry:
    return sealed(index=0, time="", subject="", claim="", passed=None, body={}, by="", previous=GENESIS)


def tampered_exports() -> dict[str, tuple[Callable[[list[str]], list[str]], str]]:
    def edit(line: str, **changes: Any) -> str:
        return canonical({**json.loads(line), **changes}).decode()

    def resealed(line: str, **changes: Any) -> str:
        entry = {**json.loads(line), **changes}
        entry.pop("hash")
        return canonical({**entry, "hash": digest_json(entry)}).decode()

    return {
        "changed body": (lambda x: [*x[:2], edit(x[2], body={"i": 9}), *x[3:]], "entry 3 was changed"),
        "changed outcome": (lambda x: [edit(x[0], passed=False), *x[1:]], "entry 1 was changed"),
        "changed and hashed anew": (lambda x: [*x[:2], resealed(x[2], by="you"), *x[3:]], "entry 4 does not"),
        "deleted": (lambda x: x[:2] + x[3:], "entry 3 is missing"),
        "first deleted": (lambda x: x[1:], "entry 1 is missing"),
        "put in": (lambda x: [*x[:2], resealed(x[2], by="you"), *x[2:]], "entry 3 is out of its place"),
        "twice": (lambda x: [*x[:2], x[1], *x[2:]], "entry 2 is out of its place"),
        "swapped": (lambda x: [x[0], x[2], x[1], *x[3:]], "entry 2 is missing: entry 3 follows"),
        "cut off": (lambda x: x[:-1], "entries after 5 are missing"),
        "spaces": (lambda x: [x[0].replace(",", ", ", 1), *x[1:]], "entry 1 was changed"),
        "a key twice": (lambda x: ['{"by":"you",' + x[0][1:], *x[1:]], "entry 1 was changed"),
        "a field more": (lambda x: [edit(x[0], more=1), *x[1:]], "entry 1 was changed"),
        "no JSON": (lambda x: [*x[:3], "{", *x[4:]], "line 4 of the export is not an entry"),
        "no object": (lambda x: ["[1]", *x[1:]], "entry 1|line 1"),
        "not a number": (lambda x: [x[0].replace('{"i":0}', '{"i":NaN}'), *x[1:]], "line 1"),
        "bottomless": (lambda x: ["[" * 100_000, *x[1:]], "line 1"),
        "an empty line": (lambda x: [x[0], "", *x[1:]], "line 2"),
    }


@pytest.mark.parametrize("kind", tampered_exports())
def test_a_tampered_export_is_found_and_named(kind: str) -> None:
    lines, previous = [], GENESIS
    for index in range(1, 7):
        entry = sealed(
            index=index, time="t", subject="s", claim="c", passed=True, body={"i": index - 1}, by="me",
            previous=previous,
        )  # fmt: skip
        previous = entry.hash
        lines.append(canonical(entry.to_json()).decode())
    tamper, message = tampered_exports()[kind]
    assert verify_export(lines, head=previous) == 6
    with pytest.raises(LedgerBroken, match=message):
        verify_export(tamper(lines), head=previous)


@settings(max_examples=60, deadline=None)
@given(
    index=st.integers(1, 2**63 - 1), time=st.text(), subject=st.text(), claim=st.text(), by=st.text(),
    passed=st.sampled_from([True, False, None]), previous=st.text(),
    body=st.dictionaries(
        st.text(), st.recursive(st.none() | st.booleans() | st.integers() | st.text()
                                | st.floats(allow_nan=False, allow_infinity=False),
                                lambda x: st.lists(x) | st.dictionaries(st.text(), x), max_leaves=4),
        max_size=2,
    ),
)  # fmt: skip
def test_the_quick_hash_is_that_of_the_canonical_json(body: dict[str, Any], **fields: Any) -> None:
    entry = sealed(body=body, **fields)
    rest = {name: value for name, value in entry.to_json().items() if name != "hash"}
    assert entry.hash == digest_json(rest)
    order = (entry.index, entry.time, entry.subject, entry.claim, entry.passed)
    parts = (*order, canonical(body).decode(), entry.by, entry.previous)
    assert hash_of(parts) == entry.hash
    assert line_of(parts, entry.hash) == canonical(entry.to_json()).decode()


COLUMNS = 'number, "time", subject, claim, passed, body, "by", previous, hash'


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE modelyard_ledger SET body = '{}' WHERE number = 2",
        "DELETE FROM modelyard_ledger WHERE number = 6",
        "DELETE FROM modelyard_ledger",
        "DELETE FROM modelyard_ledger_head",
        "UPDATE modelyard_ledger_head SET number = 3",
    ],
)
def test_the_database_refuses_to_change_or_delete(ledger: Ledger, database: Database, statement: str) -> None:
    fill(ledger)
    with pytest.raises(StoreError, match="append-only"), database.writing() as connection:
        connection.execute(text(statement))
    assert ledger.verify() == 6


def test_the_database_refuses_to_replace_or_truncate(ledger: Ledger, database: Database) -> None:
    fill(ledger)
    statement = (
        f"INSERT OR REPLACE INTO modelyard_ledger SELECT {COLUMNS.replace('number', '2', 1)}"
        " FROM modelyard_ledger WHERE number = 1"
        if database.place.endswith(".db")
        else "TRUNCATE modelyard_ledger"
    )
    with pytest.raises(StoreError, match="append-only"), database.writing() as connection:
        connection.execute(text(statement))
    assert ledger.verify() == 6


def disarm(database: Database) -> None:
    """What somebody with all rights on the database can do first."""
    with database.writing() as connection:
        if connection.dialect.name == "sqlite":
            names = connection.execute(text("SELECT name FROM sqlite_master WHERE type = 'trigger'"))
            for name in [row[0] for row in names]:
                connection.execute(text(f"DROP TRIGGER {name}"))
        else:
            connection.execute(text("DROP FUNCTION modelyard_ledger_refuse() CASCADE"))


SHIFT = "UPDATE modelyard_ledger SET number = number + {by} WHERE number {where}"


@pytest.mark.parametrize(
    ("statements", "message"),
    [
        (["UPDATE modelyard_ledger SET body = '{\"i\":7}' WHERE number = 3"], "entry 3 was changed"),
        (["UPDATE modelyard_ledger SET body = '{\"i\": 2}' WHERE number = 3"], "entry 3 was changed"),
        (["UPDATE modelyard_ledger SET passed = NULL WHERE number = 1"], "entry 1 was changed"),
        (["UPDATE modelyard_ledger SET \"time\" = '1999' WHERE number = 6"], "entry 6 was changed"),
        (["UPDATE modelyard_ledger SET subject = 'x' WHERE number = 6"], "entry 6 was changed"),
        (["DELETE FROM modelyard_ledger WHERE number = 4"], "entry 4 is missing"),
        (["DELETE FROM modelyard_ledger WHERE number = 1"], "entry 1 is missing"),
        (["DELETE FROM modelyard_ledger WHERE number >= 5"], "entry 5 is missing, and all after it up to 6"),
        (["DELETE FROM modelyard_ledger"], "entry 1 is missing, and all"),
        (
            [
                SHIFT.format(by=100, where=">= 3"),
                f"INSERT INTO modelyard_ledger SELECT {COLUMNS.replace('number', '3', 1)}"
                " FROM modelyard_ledger WHERE number = 2",
                SHIFT.format(by=-99, where="> 100"),
            ],
            "entry 3 was changed",
        ),
        (
            [
                SHIFT.format(by=100, where="= 2"),
                SHIFT.format(by=-1, where="= 3"),
                SHIFT.format(by=-99, where="= 102"),
            ],
            "entry 2 was changed",
        ),
        (
            [
                f"INSERT INTO modelyard_ledger SELECT {COLUMNS.replace('number', '7', 1)}"
                " FROM modelyard_ledger WHERE number = 6"
            ],
            "entry 7 was changed",
        ),
        (["DELETE FROM modelyard_ledger_head"], "head is missing"),
    ],
)
def test_a_tampered_database_is_found_and_named(
    ledger: Ledger, database: Database, statements: list[str], message: str
) -> None:
    fill(ledger)
    disarm(database)
    with database.writing() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)
    with pytest.raises(LedgerBroken, match=message):
        ledger.verify()


def test_an_entry_that_was_put_in_with_a_right_hash_is_found(ledger: Ledger, database: Database) -> None:
    made = fill(ledger)
    disarm(database)

    def put(entry: Entry, number: int) -> None:
        with database.writing() as connection:
            connection.execute(text(f"DELETE FROM modelyard_ledger WHERE number = {number}"))
            connection.execute(
                text(
                    f"INSERT INTO modelyard_ledger ({COLUMNS})"
                    " VALUES (:number, 't', 's', 'c', NULL, '{}', 'you', :previous, :hash)"
                ),
                {"number": number, "previous": entry.previous, "hash": entry.hash},
            )

    def forged(index: int, previous: str) -> Entry:
        return sealed(
            index=index, time="t", subject="s", claim="c", passed=None, body={}, by="you", previous=previous
        )

    put(forged(7, made[-1].hash), 7)
    with pytest.raises(LedgerBroken, match="entry 7 was put in"):
        ledger.verify()
    put(forged(3, made[1].hash), 3)
    with pytest.raises(LedgerBroken, match="entry 4 does not follow entry 3"):
        ledger.verify()


def test_an_altered_entry_is_not_read_as_evidence(ledger: Ledger, database: Database) -> None:
    fill(ledger)
    disarm(database)
    with database.writing() as connection:
        connection.exec_driver_sql("UPDATE modelyard_ledger SET passed = true WHERE number = 2")
    with pytest.raises(LedgerBroken, match="entry 2 was changed"):
        ledger.entries(claim="a.1")
    assert len(ledger.entries(after=2)) == 4
    # It can still be exported, to look at, and the export does not verify either.
    with pytest.raises(LedgerBroken, match="entry 2 was changed"):
        verify_export(ledger.export())


def test_threads_append_one_after_the_other(ledger: Ledger, make_database: Callable[..., Database]) -> None:
    ledgers = [ledger, Ledger(make_database()), ledger, Ledger(make_database())]
    failures: list[BaseException] = []

    def write(target: Ledger, name: str) -> None:
        try:
            for i in range(10):
                target.append("project:p", f"{name}.{i}", by=name)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=write, args=(x, f"t{i}")) for i, x in enumerate(ledgers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert ledger.verify() == 40
    for i in range(4):
        own = [entry.claim for entry in ledger.entries(prefix=f"t{i}.")]
        assert own == [f"t{i}.{n}" for n in range(10)]


def test_verify_sees_one_state_while_others_write(
    ledger: Ledger, make_database: Callable[..., Database], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("modelyard.store.ledger._PAGE", 2)
    fill(ledger)
    other = Ledger(make_database())
    other.append("project:p", "first", by="other")
    from modelyard.store import ledger as module

    hash_row = module._hash

    def write_meanwhile(row: Any) -> str | None:
        if row[0] == 1:
            other.append("project:p", "meanwhile", by="other")
        return hash_row(row)

    monkeypatch.setattr(module, "_hash", write_meanwhile)
    assert ledger.verify() == 7
    monkeypatch.undo()
    assert ledger.verify() == 8


def test_a_transaction_that_fails_leaves_nothing(ledger: Ledger, database: Database) -> None:
    fill(ledger, 2)

    class Failing(Exception):
        pass

    with pytest.raises(Failing), database.writing() as connection:
        connection.execute(text("UPDATE modelyard_ledger_head SET number = 3"))
        raise Failing
    assert ledger.verify() == 2
    with pytest.raises((StoreError, DBAPIError)), database.reading() as connection:
        connection.execute(text("SELECT nothing FROM nowhere"))
    ledger.append("project:p", "after", by="me")
    assert ledger.verify() == 3
