"""Killed writers, several writers, full disks, locked and lost databases."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import text

from modelyard.core.errors import LedgerBroken, StoreBusy, StoreError
from modelyard.store.database import Database
from modelyard.store.ledger import Ledger
from modelyard.store.records import Records

KILLS = 100


def forked(work: Callable[[], None]) -> int:
    """Runs some work in a forked process and returns its id; its exit status is 0 when it did not raise."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    return child


def test_killed_writers_lose_nothing_acknowledged(database: Database) -> None:
    ledger, records = Ledger(database), Records(database)
    run = records.start_run("p", "train")
    ledger.append("project:p", "first", by="parent")
    generator = np.random.default_rng(7)
    acknowledged = 0
    for kill in range(KILLS):
        reader, writer = os.pipe()

        def write(name: str = f"writer.{kill}", out: int = writer) -> None:
            for i in range(10_000):
                entry = ledger.append("project:p", name, passed=True, body={"i": i, "pad": "x" * 50}, by=name)
                records.log_metrics(run, {"i": float(entry.index)}, step=entry.index)
                os.write(out, b"%d %s\n" % (entry.index, entry.hash.encode()))

        child = forked(write)
        os.close(writer)
        # After the first word it is surely in the middle of the work; then at any moment of it.
        heard = os.read(reader, 4096)
        deadline = time.monotonic() + generator.uniform(0.0, 0.012)
        while time.monotonic() < deadline:
            pass
        os.kill(child, signal.SIGKILL)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
        while part := os.read(reader, 4096):
            heard += part
        os.close(reader)
        assert heard.endswith(b"\n")
        for line in heard.decode().splitlines():
            index, hash = line.split()
            found = ledger.entries(after=int(index) - 1, limit=1)[0]
            assert (found.index, found.hash, found.by) == (int(index), hash, f"writer.{kill}")
            acknowledged += 1
        assert records.run(run).metrics["i"] >= int(index)
        if kill % 10 == 0:
            ledger.verify()
    assert acknowledged >= KILLS
    count = ledger.verify()
    assert acknowledged <= count - 1 <= acknowledged + KILLS
    assert ledger.append("project:p", "last", by="parent").index == count + 1


def test_four_processes_append_at_once(database: Database) -> None:
    ledger = Ledger(database)

    def write(name: str) -> None:
        for i in range(15):
            ledger.append("project:p", f"{name}.{i}", by=name)

    # Nothing is there yet: the four also make the tables at once.
    children = [forked(lambda name=name: write(name)) for name in "abcd"]
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0, 0]
    assert ledger.verify() == 60
    for name in "abcd":
        assert [x.claim for x in ledger.entries(prefix=f"{name}.")] == [f"{name}.{i}" for i in range(15)]


def test_a_locked_database_is_busy_after_the_wait(make_database: Callable[..., Database]) -> None:
    holder, impatient = make_database(), make_database(wait=0.2)
    ledger = Ledger(impatient)
    ledger.append("project:p", "before", by="me")
    with holder.writing() as connection:
        connection.execute(text("UPDATE modelyard_ledger_head SET number = number + 1"))
        start = time.monotonic()
        with pytest.raises(StoreBusy, match=r"another process is writing.*waited for 0\.2 s"):
            ledger.append("project:p", "meanwhile", by="me")
        assert 0.15 < time.monotonic() - start < 5
        # Readers do not wait for the writer.
        assert ledger.verify() == 1
        connection.rollback()
    assert ledger.append("project:p", "after", by="me").index == 2


@contextmanager
def file_size_limit(limit: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    old = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, old)


def fill_until_refused(ledger: Ledger) -> tuple[int, StoreError]:
    for done in range(1, 1000):
        try:
            ledger.append("project:p", "fill", body={"pad": "x" * 20_000}, by="me")
        except StoreError as error:
            return done - 1, error
    raise AssertionError("the disk never became full")


def test_a_file_that_may_not_grow_leaves_a_whole_ledger(tmp_path: Path) -> None:
    ledger = Ledger(Database(f"sqlite:///{tmp_path}/records.db"))
    ledger.append("project:p", "before", by="me")
    with file_size_limit(400_000):
        done, error = fill_until_refused(ledger)
        assert "the disk" in str(error)
        assert ledger.verify() == done + 1
    assert ledger.append("project:p", "after", by="me").index == done + 2
    assert ledger.verify() == done + 2


def test_a_full_disk_leaves_a_whole_ledger(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = os.geteuid() == 0 and (
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], capture_output=True, check=False
        ).returncode
        == 0
    )
    if not mounted:
        # Without the right to mount, the limit on a file's size makes the same error of the same write.
        return
    database = Database(f"sqlite:///{disk}/records.db")
    try:
        ledger = Ledger(database)
        ledger.append("project:p", "before", by="me")
        ballast = disk / "ballast"
        ballast.write_bytes(b"x" * 500_000)
        done, error = fill_until_refused(ledger)
        assert "the disk is full" in str(error) or "cannot be read or written" in str(error)
        assert "free some space" in str(error) or "disk's space" in str(error)
        assert ledger.verify() == done + 1
        ballast.unlink()
        assert ledger.append("project:p", "after", by="me").index == done + 2
        assert ledger.verify() == done + 2
    finally:
        database.close()
        subprocess.run(["umount", "-l", disk], check=True)


@pytest.mark.parametrize("how", ["deleted", "replaced"])
def test_a_lost_file_is_not_written_to(tmp_path: Path, how: str) -> None:
    file = tmp_path / "records.db"
    database = Database(f"sqlite:///{file}")
    ledger = Ledger(database)
    ledger.append("project:p", "before", by="me")
    saved = tmp_path / "saved.db"
    file.rename(saved)
    if how == "replaced":
        file.touch()
    with pytest.raises(StoreError, match=r"is gone or was replaced.*put it back"):
        ledger.append("project:p", "lost", by="me")
    with pytest.raises(StoreError, match="is gone or was replaced"):
        ledger.verify()
    saved.rename(file)
    assert ledger.append("project:p", "after", by="me").index == 2
    database.close()


def test_a_file_that_vanishes_during_a_write_is_not_acknowledged(tmp_path: Path) -> None:
    file = tmp_path / "records.db"
    database = Database(f"sqlite:///{file}")
    ledger = Ledger(database)
    ledger.append("project:p", "before", by="me")

    class Deleting:
        def now(self) -> float:
            file.unlink()
            return 0.0

        def monotonic(self) -> float:
            return 0.0

    with pytest.raises(StoreError, match="is gone"):
        Ledger(database, Deleting()).append("project:p", "lost", by="me")
    database.close()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"this is no database, it is a letter" * 100, "no SQLite database"),
        (None, "cannot be opened|cannot be made"),
    ],
)
def test_a_file_that_is_no_database(tmp_path: Path, content: bytes | None, message: str) -> None:
    file = tmp_path / "records.db"
    if content is None:
        file.mkdir()
    else:
        file.write_bytes(content)
    with pytest.raises(StoreError, match=message):
        Ledger(Database(f"sqlite:///{file}")).verify()
    if content is not None:
        assert file.read_bytes() == content


def test_a_damaged_database_is_an_error_of_ours(tmp_path: Path) -> None:
    file = tmp_path / "records.db"
    database = Database(f"sqlite:///{file}")
    ledger = Ledger(database)
    for _ in range(50):
        ledger.append("project:p", "c", body={"pad": "x" * 1000}, by="me")
    database.close()
    data = bytearray(file.read_bytes())
    generator = np.random.default_rng(0)
    for _ in range(400):
        data[generator.integers(8192, len(data))] ^= 0xFF
    file.write_bytes(data)
    with pytest.raises((LedgerBroken, StoreError)):
        ledger.verify()
    database.close()


def test_a_server_that_goes_and_comes_back(postgres_tool: Any) -> None:
    with postgres_tool.running() as server:
        database = Database(server.url, wait=2.0)
        ledger = Ledger(database)
        ledger.append("project:p", "before", by="me")
        server.stop()
        with pytest.raises(StoreError, match=r"cannot be reached|broke|shutting down") as caught:
            ledger.append("project:p", "meanwhile", by="me")
        assert server.password not in str(caught.value)
        server.start()
        assert ledger.append("project:p", "after", by="me").index == 2
        database.close()


def test_acknowledged_means_synced(make_database: Callable[..., Database]) -> None:
    with make_database().reading() as connection:
        if connection.dialect.name == "sqlite":
            assert connection.execute(text("PRAGMA synchronous")).scalar() == 2
            assert connection.execute(text("PRAGMA journal_mode")).scalar() == "wal"
        else:
            assert connection.execute(text("SHOW synchronous_commit")).scalar() == "on"


def test_a_server_that_acknowledges_early_is_told_not_to(postgres_url: str) -> None:
    lax = f"{postgres_url}%20-csynchronous_commit%3Doff%20-cdefault_transaction_isolation%3Dserializable"
    database = Database(lax)
    with database.writing() as connection:
        assert connection.execute(text("SHOW synchronous_commit")).scalar() == "on"
        assert connection.execute(text("SHOW transaction_isolation")).scalar() == "read committed"
    database.close()
