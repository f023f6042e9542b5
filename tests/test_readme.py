"""The README keeps its word: its commands run on a project, its sample run looks like a real one."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from modelyard.lifecycle.project_file import read_project

HERE = Path(__file__).parents[1]
README = (HERE / "README.md").read_text(encoding="utf-8")
NUMBER, FIGURE, SHORT = r"\d[\d,]*", r"\d+(\.\d+)?", r"[0-9a-f]{12}"
RATE = r"\d\.\d{3}"
INTERVAL = rf"\[{RATE}, {RATE}\]"
SECONDS = r"[\d.]+ (s|ms|min)"
ROWS = {
    "data": rf"{NUMBER} rows · contract holds · {NUMBER}/{NUMBER}/{NUMBER} by hash",
    "train": rf"[\w.\- ]+ · {NUMBER} trials? · accuracy {RATE} {INTERVAL}",
    "compress": rf"(\S+ · {FIGURE}x smaller · {FIGURE}x faster \[{FIGURE} x, {FIGURE} x\]|kept as trained.*)",
    "validate": rf"(\d+) of \1 requirements? · accuracy {RATE} {INTERVAL}",
    "release": rf"[a-z0-9-]+ \d+ · {SHORT} · [\d.]+ kB, signed",
    "serve": rf"canary: promote after {NUMBER} requests against (its answers in training|the champion)",
    "": rf"rolled back under load in {SECONDS}, 0 of {NUMBER} requests failed",
    "monitor": rf"{NUMBER} live rows( · quiet|, too few) · \d of \d drills fired as planted and stayed quiet "
    "otherwise",
}
"""The shape of each step's line, as the README shows it and as a run prints it."""


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.M | re.S)


def step_lines(text: str) -> dict[str, str]:
    """The lines of a run's first part by step; a line without a step's name continues the one above."""
    found = {}
    for line in text.partition("\n\n")[0].splitlines():
        step, said = line[:10].strip(), line[10:].strip()
        said = re.sub(rf"  +({SECONDS}|[\d.]+ µs|cached)$", "", said)
        if step or "rolled back" in said:
            found[step] = said
    return found


def test_the_sample_run_has_the_shape_of_a_run() -> None:
    (sample,) = blocks("text")
    lines = step_lines(sample)
    assert list(lines) == ["data", "train", "compress", "validate", "release", "serve", "", "monitor"]
    for step, said in lines.items():
        assert re.fullmatch(ROWS[step], said), f"{step}: {said}"


def test_a_real_run_has_the_shape_of_the_sample(yard: Any) -> None:
    done = yard("run", "--no-serve")
    assert done.code == 0, done.out + done.err
    lines = step_lines(done.out)
    assert set(lines) == set(ROWS)
    for step, said in lines.items():
        assert re.fullmatch(ROWS[step], said), f"{step}: {said}"


def test_the_make_targets_exist() -> None:
    named = set(
        re.findall(
            r"make ([a-z][a-z-]*)\b",
            "\n".join(blocks("sh")) + " ".join(re.findall(r"`(make [^`]+)`", README)),
        )
    )
    assert {"demo", "test"} <= named
    for target in sorted(named):
        # `--question` runs nothing: 2 is an unknown target, 0 and 1 say whether there is anything to do.
        done = subprocess.run(
            ["make", "--question", target], cwd=HERE, capture_output=True, text=True, check=False, timeout=30
        )
        assert done.returncode in (0, 1), done.stderr


def test_the_examples_are_projects() -> None:
    for name in re.findall(r"`(\w+)` \((?:torch|tables)", README):
        assert read_project(HERE / "examples" / name).name == name


def test_the_store_can_be_named_as_shown(tmp_path: Path) -> None:
    (inline,) = re.findall(r"`\[store\] (records = .+?)`, `(objects = .+?)`", README)
    (tmp_path / "modelyard.toml").write_text(
        'version = 1\nname = "moved"\ntask = "regression"\n[data]\nsource = "x.csv"\nlabel = "y"\n'
        '[train]\nmetric = "rmse"\n[store]\n' + "\n".join(inline)
    )
    project = read_project(tmp_path)
    assert project.store.objects == "s3://bucket/prefix"
    assert (project.store.records or "").startswith("postgresql")


def test_a_project_begins_as_shown(
    tmp_path: Path, command: Callable[..., Any], csv_rows: Callable[..., str]
) -> None:
    (block,) = [text for text in blocks("sh") if "modelyard init" in text]
    (line,) = [line for line in block.splitlines() if line.startswith("modelyard init")]
    words = line.partition("#")[0].split()[1:]
    table = csv_rows(200).splitlines()
    (tmp_path / "customers.csv").write_text("\n".join(["id,age,plan,left", *_customers(len(table))]) + "\n")
    done = command(*words, cwd=tmp_path)
    assert done.code == 0, done.err
    assert command("-C", str(tmp_path / "churn"), "check").code == 0
    contract = (tmp_path / "churn" / "contract.toml").read_text()
    assert re.search(r"\[columns\.id\]\nkind = .+\nrole = \"(key|ignored)\"", contract)
    (asked,) = re.findall(r"/predict/churn -d '(.+?)'", README)
    features = set(re.findall(r"\[columns\.(\w+)\]\nkind = .+\nrole = \"feature\"", contract))
    assert set(json.loads(asked)["rows"][0]) == features == {"age", "plan"}


def _customers(number: int) -> list[str]:
    return [
        f"C{1000 + n},{20 + n * 7 % 50},{'basic' if n % 3 else 'full'},{'yes' if n % 4 else 'no'}"
        for n in range(number)
    ]


@pytest.mark.parametrize(
    "line", [line for text in blocks("sh") for line in text.splitlines() if "modelyard" in line]
)
def test_commands_that_only_look_run_on_a_project(line: str, yard: Any) -> None:
    words = line.partition("#")[0].split()
    if words[0] != "modelyard" or words[1] not in ("score", "ledger"):
        pytest.skip("it changes or starts something: its options are checked by test_docs")
    done = yard(*words[1:])
    assert done.code == 0, done.err


def test_no_command_is_shown_that_needs_what_make_does_not_bring() -> None:
    assumed = {"make", "modelyard", "pip", "cd", "curl"}
    used = {line.split()[0] for text in blocks("sh") for line in text.splitlines() if line.strip()}
    assert used <= assumed
    assert shutil.which("make")
