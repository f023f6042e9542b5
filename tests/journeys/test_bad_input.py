"""What users do wrong: one clear sentence, the right exit code, nothing half-written, never a traceback."""

from __future__ import annotations

import json
import resource
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.timeout(600)  # whole runs of the loop, on a machine that others use too

TORCH = """\
import torch


class Odd(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 2)

    def forward(self, inputs):
        x = torch.cat([inputs["a"], inputs["b"]], dim=1)
        if float(x.detach().sum()) > 1e30:  # decided by the data: no graph can hold it
            return self.layer(x)
        return self.layer(x) * float(x.detach().abs().max())


def build(trial):
    return Odd()
"""

RECIPES = [
    ("def build(trial):\n    raise RuntimeError('out of ideas')\n", "out of ideas", 6),
    ("def build(trial):\n    return 1 / 0\n", "division by zero", 6),
    ("def build(trial)\n    return None\n", "recipe.py:1: recipe.py is not Python", 6),
    ("import no_such_library\n\n\ndef build(trial):\n    return None\n", "no_such_library", 6),
    ("def build(trial):\n    return 'a model'\n", "a model", 6),
    ("def build(trial):\n    return None\n", "end the function with a return", 6),
    ("def build():\n    return None\n", "build", 6),
    ("def make(trial):\n    return None\n", "build", 6),
    ("import sys\n\n\ndef build(trial):\n    sys.exit(3)\n", "recipe", 6),
]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory, new_project: Any) -> Any:
    """A project whose data step is done."""
    yard = new_project(tmp_path_factory.mktemp("prepared") / "small")
    assert yard("data").code == 0
    return yard


@pytest.mark.parametrize(("text", "part", "code"), RECIPES, ids=[part for _, part, _ in RECIPES])
def test_a_recipe_that_cannot_be_used(prepared: Any, tmp_path: Path, text: str, part: str, code: int) -> None:
    yard = prepared.copy(tmp_path / "small")
    yard.write("recipe.py", text)
    done = yard("train")
    error = done.error()
    assert part in error
    assert "recipe.py" in error
    assert done.code == code, error
    assert len(error.splitlines()) == 1, error


def test_a_torch_module_that_cannot_be_exported(prepared: Any, tmp_path: Path) -> None:
    yard = prepared.copy(tmp_path / "small")
    yard.write("recipe.py", TORCH)
    done = yard("train", "--json")
    assert done.code in (5, 6), done.out + done.err
    fact = done.json["error"]
    assert fact["kind"] in ("ConversionError", "TrainError"), fact
    assert "Traceback" not in done.out + done.err
    assert yard("ledger", "verify").code == 0


def test_data_with_missing_labels_or_broken_by_the_contract_stops_at_data(
    prepared: Any, tmp_path: Path
) -> None:
    yard = prepared.copy(tmp_path / "small")
    good = (yard.root / "data.csv").read_text()
    yard.write("data.csv", good + "NaN,0.1,yes\n1e9,0.1,yes\n0.1,0.2,maybe\n0.1,0.2,\n")
    done = yard("run", "--no-serve", "--json")
    assert done.code == 15, done.out + done.err
    found = done.json
    assert [row["name"] for row in found["steps"]] == ["data"]
    assert "contract.toml" in found["stopped"]
    findings = found["steps"][0]["values"]["findings"]["findings"]
    said = {(item["column"], item["rule"]) for item in findings}
    assert {column for column, _ in said} == {"a", "y"}
    assert len(said) >= 4, said
    assert all(item["rows"] >= 1 and item["message"] for item in findings)
    assert found["release"] == ""
    people = yard("data")
    assert people.code == 15
    assert "stopped: the data breaks contract.toml" in people.out
    # Mended data goes on.
    yard.write("data.csv", good)
    assert yard("data").code == 0


def test_the_gate_stops_what_is_not_good_enough(prepared: Any, tmp_path: Path) -> None:
    yard = prepared.copy(tmp_path / "small")
    yard.change("modelyard.toml", "at_least = 0.6", "at_least = 1.0")
    done = yard("run")
    assert done.code == 15, done.out + done.err
    assert "Traceback" not in done.out + done.err
    assert "stopped: the gate: requirement.accuracy" in done.out
    assert "FAIL" in done.out
    assert "at least 1.000" in done.out
    assert yard("releases", "--json").json == [], "nothing may be released"
    assert yard("serve", "status").code == 1, "nothing may be served"
    gates = yard("ledger", "show", "--claim", "infra.4", "--json").json
    assert [row["passed"] for row in gates] == [False]
    # Nothing is served before the first release, and every command says so in a sentence.
    for words, code in ((("endpoint", "show"), 9), (("endpoint", "rollback"), 9),
                        (("endpoint", "promote"), 9), (("endpoint", "set", "1"), 9), (("monitor",), 13),
                        (("export",), 9)):  # fmt: skip
        found = yard(*words)
        found.error()
        assert found.code == code, (words, found.code, found.err)
    again = yard("serve")
    assert again.code == 15, again.out + again.err
    assert "stopped: the gate: requirement.accuracy" in again.out
    assert yard("serve", "status").code == 1, "nothing may be served"
    assert yard("report").code == 0
    assert yard("score").code == 0


SOURCES = [
    ("", "empty", 4),
    ("a,b,y\n", "empty", 4),
    ("a,b,y\n1,2,yes\n1,2\n", "line 3", 4),
    ("a,a,y\n1,2,yes\n2,3,no\n", "share a name", 4),
    ("a,b,y\n" + "1.5,2,yes\n" * 30, "class", 4),
    ("a,b,z\n1,2,yes\n2,3,no\n", "'y'", 4),
    ("y\nyes\nno\n", "feature", 4),
]


@pytest.mark.parametrize(
    ("text", "part", "code"), SOURCES, ids=[text[:20] or "empty" for text, _, _ in SOURCES]
)
def test_data_that_cannot_be_used(project: Any, text: str, part: str, code: int) -> None:
    project.write("data.csv", text)
    done = project("data")
    assert part in done.error()
    assert done.code == code
    assert not (project.root / "contract.toml").exists(), "nothing half-written"


FUNCTIONS = [
    ("def load():\n    raise OSError('no network')\n", "no network"),
    ("def load():\n    return 5\n", "no table: got 'int'"),
    ("def load()\n    return 5\n", "line 1"),
    ("def lod():\n    return 5\n", "load"),
]


@pytest.mark.parametrize(("text", "part"), FUNCTIONS, ids=[part for _, part in FUNCTIONS])
def test_a_load_function_that_cannot_be_used(project: Any, text: str, part: str) -> None:
    project.write("data.py", text)
    project.change("modelyard.toml", '"data.csv"', '"data.py:load"')
    done = project("data")
    assert part in done.error()
    assert "data.py" in done.err
    assert done.code == 4


def test_check_finds_what_run_would_stumble_over(project: Any) -> None:
    assert project("check").code == 0
    cases = [
        ("modelyard.toml", '"data.csv"', '"dta.csv"', "did you mean 'data.csv'?"),
        ("modelyard.toml", "recipe.py:build", "recipe.py:bild", "did you mean 'build'?"),
        ("modelyard.toml", "recipe.py:build", "recpie.py:build", "did you mean 'recipe.py'?"),
        ("modelyard.toml", "passes = []", 'passes = ["grph"]', "did you mean 'graph'?"),
        ("modelyard.toml", "[gate]", '[store]\nrecords = "${NO_SUCH_VARIABLE}"\n[gate]', "NO_SUCH_VARIABLE"),
        ("recipe.py", "def build(trial):", "def build(trial)", "recipe.py, line 4"),
    ]
    for file, old, new, part in cases:
        text = (project.root / file).read_text()
        project.change(file, old, new)
        done = project("check")
        assert part in done.error(), (new, done.err)
        assert done.code == 3
        assert project("check", "--json").json["error"]["kind"] == "ProjectError"
        project.write(file, text)
    assert not (project.root / ".modelyard").exists(), "a check writes nothing"


def test_a_wrong_contract_file_is_named_with_its_line(prepared: Any, tmp_path: Path) -> None:
    yard = prepared.copy(tmp_path / "small")
    yard.change("contract.toml", 'kind = "number"', 'kind = "numbr"')
    for words in (("check",), ("data",)):
        done = yard(*words)
        assert "numbr" in done.error()
        assert "contract.toml" in done.err
        assert done.code in (3, 4)


def test_a_locked_database_is_said_within_the_wait(released: Any, tmp_path: Path) -> None:
    yard = released.copy(tmp_path / "small")
    base = sqlite3.connect(yard.root / ".modelyard" / "records.db", isolation_level=None)
    base.execute("begin exclusive")
    try:
        done = yard("score", "note", "data.3", "--link", "https://x.example/1", "--author", "me", limit=90)
    finally:
        base.execute("rollback")
        base.close()
    assert done.code == 8, done.out + done.err
    assert "lock" in done.error()
    assert yard("ledger", "verify").code == 0


def test_a_lost_or_broken_database_is_an_error_and_not_an_empty_store(released: Any, tmp_path: Path) -> None:
    yard = released.copy(tmp_path / "small")
    path = yard.root / ".modelyard" / "records.db"
    whole = path.read_bytes()
    for extra in ("-wal", "-shm"):
        path.with_name(path.name + extra).unlink(missing_ok=True)
    path.write_bytes(b"this is no database, " * 100)
    done = yard("ledger", "verify")
    assert done.code == 8
    assert "records.db" in done.error()
    path.write_bytes(whole[: len(whole) // 2])
    done = yard("ledger", "verify")
    assert done.code == 8, done.out
    done.error()
    yard.change(
        "modelyard.toml", "[gate]", '[store]\nrecords = "postgresql://u:secret@127.0.0.1:1/x"\n[gate]'
    )
    done = yard("why")
    assert done.code == 8, done.err
    assert "secret" not in done.error(), "a password in a message"


def test_a_full_disk_is_said_and_nothing_is_lost(prepared: Any, tmp_path: Path) -> None:
    """A limit on what a file may grow to stands in for a disk that is full."""
    yard = prepared.copy(tmp_path / "small")
    before = yard("ledger", "export").out
    command = [str(Path(sys.executable).with_name("modelyard")), "-C", str(yard.root), "train"]

    def limited() -> None:
        import signal

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # then a write fails with an error, as on a full disk
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))

    done = subprocess.run(
        command, preexec_fn=limited, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 8, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert done.stderr.startswith("error: ")
    assert yard("ledger", "verify").code == 0
    assert yard("ledger", "export").out.startswith(before)
    assert yard("train").code == 0, "with room again it goes on"


def test_a_folder_that_cannot_be_written(tmp_path: Path, new_project: Any) -> None:
    yard = new_project(tmp_path / "small")
    yard.write(".modelyard", "a file where the store's folder should be")
    done = yard("data")
    assert done.code == 8
    assert ".modelyard" in done.error()


def test_a_closed_pipe_is_no_failure_of_ours(released: Any) -> None:
    command = f"{Path(sys.executable).with_name('modelyard')} -C {released.root} ledger export | head -n 1"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, check=False
    )
    assert json.loads(done.stdout)["index"] == 1
    assert done.stderr == "", done.stderr
