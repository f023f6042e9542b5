"""The loop as its user sees it: real commands on a real store; what is cached, and what a change reruns."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.timeout(600)  # whole runs of the loop, on a machine that others use too

STEPS = ["data", "train", "compress", "validate", "release", "serve", "monitor"]


def reasons(yard: Any) -> dict[str, list[str]]:
    """What `modelyard why` says, by step; empty where it is cached."""
    return {row["step"]: row["reasons"] for row in yard("why", "--json").json}


def would_run(yard: Any) -> list[str]:
    return [step for step, found in reasons(yard).items() if found]


def test_a_second_run_with_nothing_changed_is_cached_and_says_so(yard: Any) -> None:
    before = yard("ledger", "verify", "--json").json
    done = yard("run", "--no-serve")
    assert done.code == 0, done.out + done.err
    table = done.out.partition("\nrequirement")[0]
    lines = {line.split()[0]: line for line in table.splitlines() if line.split()[:1]}
    for step in STEPS:
        assert lines[step].rstrip().endswith("cached"), lines[step]
    assert yard("ledger", "verify", "--json").json == before, "a cached run must not write evidence"
    assert all("cached" in line for line in yard("why").out.splitlines())


def test_a_cached_run_takes_under_three_seconds(yard: Any) -> None:
    """Of processor time, which neighbours on the machine do not stretch; the benchmark reads the clock."""
    before = os.times()
    assert yard("run", "--no-serve").code == 0
    after = os.times()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    assert 0.1 < used < 3.0


@pytest.mark.parametrize(
    ("file", "old", "new", "first", "reason"),
    [
        ("recipe.py", "C=1.0", "C=2.0", "train", "recipe.py changed"),
        ("data.csv", "a,b,y\n", "a,b,y\n0.5,0.5,yes\n", "data", "the content of the source changed"),
        ("modelyard.toml", "at_least = 0.6", "at_least = 0.7", "validate", "[[requirement]] changed"),
        ("modelyard.toml", "trials = 1", "trials = 2", "train", "[train] trials changed"),
        ("modelyard.toml", "passes = []", 'passes = ["graph"]', "compress", "[compress] passes changed"),
        ("modelyard.toml", "margin = 0.2", "margin = 0.3", "validate", "[gate] margin changed"),
        ("modelyard.toml", "[endpoint]", "[canary]\nrequests = 2500\n[endpoint]", "serve",
         "[canary] requests changed"),
        ("modelyard.toml", "[endpoint]", "[monitor]\nwindow = 50\n[endpoint]", "monitor",
         "[monitor] window changed"),
        ("contract.toml", 'name = "small"', 'name = "small"\nowner = "x"', "data", "contract.toml changed"),
    ],
)  # fmt: skip
def test_a_change_reruns_from_its_step_on_and_why_names_it(
    released: Any, tmp_path: Path, file: str, old: str, new: str, first: str, reason: str
) -> None:
    yard = released.copy(tmp_path / "small")
    yard.change(file, old, new)
    found = reasons(yard)
    start = STEPS.index(first)
    assert [step for step in STEPS if found[step]] == STEPS[start:]
    assert reason in found[first]
    for step in STEPS[:start]:
        assert found[step] == []


def test_a_changed_recipe_is_trained_again_and_the_data_is_not_read_again(yard: Any) -> None:
    was = {row["name"]: row["finished"] for row in yard("run", "--no-serve", "--json").json["steps"]}
    yard.change("recipe.py", "def build", "# a word\ndef build")
    done = yard("compress", "--json")
    assert done.code == 0, done.out + done.err
    now = {row["name"]: row["finished"] for row in done.json["steps"]}
    assert list(now) == ["data", "train", "compress"]
    assert now["data"] == was["data"]
    assert now["train"] > was["train"]
    assert now["compress"] > was["compress"]


def test_a_new_file_that_the_recipe_imports_counts_and_one_that_it_does_not_import_does_not(
    yard: Any,
) -> None:
    yard.write("unused.py", "x = 1\n")
    assert would_run(yard) == []
    yard.write("knobs.py", "C = 1.0\n")
    yard.change("recipe.py", "def build", "from knobs import C\n\n\ndef build")
    assert "knobs.py is new" in reasons(yard)["train"]


def test_why_of_one_step_and_of_none_that_exists(yard: Any) -> None:
    assert yard("why", "train").out.startswith("train      cached")
    assert len(yard("why", "train", "--json").json) == 1
    error = yard("why", "trian").error()
    assert "did you mean 'train'?" in error


def test_a_stored_step_of_another_version_is_ignored(yard: Any) -> None:
    with sqlite3.connect(yard.root / ".modelyard" / "records.db") as base:
        found = base.execute("select value from modelyard_documents where key = 'small/train'").fetchone()
        value = json.loads(found[0])
        value["version"] = 99
        assert found is not None
        base.execute(
            "update modelyard_documents set value = ? where key = 'small/train'", (json.dumps(value),)
        )
    base.close()
    found = reasons(yard)
    assert found["train"] == ["it has not run yet"]
    assert found["data"] == []


def test_the_ledger_verifies_and_its_export_verifies_without_us(yard: Any, tmp_path: Path) -> None:
    entries = yard("ledger", "verify", "--json").json["entries"]
    assert entries > 20
    file = tmp_path / "ledger.jsonl"
    assert yard("ledger", "export", "-o", str(file), "--json").json == {"entries": entries, "file": str(file)}
    lines = file.read_text().splitlines()
    assert lines == yard("ledger", "export").out.splitlines()
    assert verified(lines) == entries
    forged = lines.copy()
    forged[5] = (
        forged[5].replace('"passed":true', '"passed":false').replace('"passed": true', '"passed": false')
    )
    if forged[5] == lines[5]:
        forged[5] = forged[5].replace('"claim"', '"claimed"', 1)
    with pytest.raises((AssertionError, KeyError)):
        verified(forged)


def verified(lines: list[str]) -> int:
    """An independent check of an exported ledger: hashes and chain, from the documented format alone."""
    previous = ""
    for index, line in enumerate(lines):
        entry = json.loads(line)
        claimed = entry.pop("hash")
        text = json.dumps(entry, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        assert claimed.removeprefix("sha256:") == hashlib.sha256(text.encode()).hexdigest(), index
        assert index == 0 or entry["previous"] == previous, index
        previous = claimed
    return len(lines)


def test_a_forged_entry_is_found(yard: Any) -> None:
    path = yard.root / ".modelyard" / "records.db"
    with sqlite3.connect(path) as base:
        forge = "update modelyard_ledger set passed = 0 where passed = 1 and claim = 'infra.4'"
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            base.execute(forge)
        triggers = "select name from sqlite_master where type = 'trigger'"
        for (name,) in base.execute(triggers).fetchall():
            base.execute(f"drop trigger {name}")
        changed = base.execute(forge).rowcount
    base.close()
    assert changed >= 1
    done = yard("ledger", "verify")
    assert done.code == 8
    assert "entry" in done.error()
    assert yard("ledger", "verify", "--json").json["error"]["kind"] == "LedgerBroken"


def test_steps_run_alone_with_the_steps_before_them(project: Any) -> None:
    done = project("data")
    assert done.code == 0, done.err
    assert "contract holds" in done.out
    assert (project.root / "contract.toml").is_file()
    assert would_run(project) == STEPS[1:]
    # A step runs what it needs first, and nothing after it.
    done = project("compress", "--json")
    assert [row["name"] for row in done.json["steps"]] == ["data", "train", "compress"]
    assert would_run(project) == STEPS[3:]
