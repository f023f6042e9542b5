"""An export of the ledger's format 1, frozen when it was defined: it must verify forever.

Never regenerate `ledger-1.jsonl`. When the format changes, add a file of the new version beside it.
"""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path

import pytest
from sqlalchemy import insert, update

from modelyard.core.errors import LedgerBroken
from modelyard.store.database import Database
from modelyard.store.ledger import Ledger, verify_export
from modelyard.store.tables import LEDGER, LEDGER_HEAD

FILE = Path(__file__).parent / "ledger-1.jsonl"
FILE_SHA256 = "4f10c0d95f9a53278847697292089a68a9dac6ddb7ef83b0fef099da856fad3e"
HEAD = "sha256:47a92ffdd93d138d87ecd17d38016ddc946b3522016bc4607c04256dd5db3fe4"


def lines() -> list[str]:
    # Not splitlines(): U+2028 inside a text is no end of a line in JSON Lines.
    return FILE.read_bytes().decode().removesuffix("\n").split("\n")


def test_the_frozen_file_is_untouched() -> None:
    assert sha256(FILE.read_bytes()).hexdigest() == FILE_SHA256


def test_the_frozen_export_verifies() -> None:
    assert verify_export(lines(), head=HEAD) == 5
    with FILE.open(encoding="utf-8", newline="\n") as file:
        assert verify_export(file, head=HEAD) == 5


def test_the_frozen_export_verifies_without_us() -> None:
    """The law as an outsider reads it: cut the hash out of the line, hash what is left."""
    previous = "sha256:" + sha256(b"modelyard ledger 1").hexdigest()
    for index, line in enumerate(lines(), start=1):
        stated = json.loads(line)["hash"]
        member = f'"hash":"{stated}",'
        assert line.count(member) == 1
        assert "sha256:" + sha256(line.replace(member, "").encode()).hexdigest() == stated
        assert json.loads(line)["previous"] == previous
        assert json.loads(line)["index"] == index
        previous = stated
    assert previous == HEAD


def test_every_changed_byte_is_found() -> None:
    text = "\n".join(lines())
    for place in range(0, len(text), 7):
        changed = text[:place] + ("0" if text[place] != "0" else "1") + text[place + 1 :]
        with pytest.raises(LedgerBroken):
            verify_export(changed.split("\n"), head=HEAD)


def test_todays_ledger_reads_the_frozen_entries(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/records.db")
    with database.writing() as connection:
        for line in lines():
            entry = json.loads(line)
            body = json.dumps(entry.pop("body"), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
            number = entry.pop("index")
            connection.execute(insert(LEDGER).values(number=number, body=body, **entry))
            connection.execute(update(LEDGER_HEAD).values(number=number, hash=entry["hash"]))
    ledger = Ledger(database)
    assert ledger.verify() == 5
    assert list(ledger.export()) == lines()
    assert [entry.to_json() for entry in ledger.entries()] == [json.loads(line) for line in lines()]
    assert ledger.append("project:digits", "goes.on", by="me").previous == HEAD
    database.close()
