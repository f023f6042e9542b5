"""Fixtures that several folders share: the `modelyard` command as a process, and a small project."""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from modelyard.core import poll

# A shell that runs the tests in the background has them, and all that they start, ignore interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)

COMMAND = Path(sys.executable).with_name("modelyard")
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "120"}

PROJECT = """\
version = 1
name = "small"
task = "classification"

[data]
source = "data.csv"
label = "y"

[train]
recipe = "recipe.py:build"
metric = "accuracy"
trials = 1

[compress]
passes = []

[gate]
margin = 0.2

[[requirement]]
metric = "accuracy"
at_least = 0.6

[endpoint]
port = 0
"""

RECIPE = """\
from sklearn.linear_model import LogisticRegression


def build(trial):
    return LogisticRegression(C=1.0)
"""


@dataclass(frozen=True)
class Done:
    """A finished command."""

    code: int
    out: str
    err: str
    seconds: float

    @property
    def json(self) -> Any:
        """What `--json` printed: exactly one document."""
        return json.loads(self.out)

    def error(self) -> str:
        """The one sentence of a refused command; no traceback anywhere."""
        assert self.code != 0, self.out
        assert "Traceback" not in self.out + self.err, self.out + self.err
        assert self.err.startswith(("error: ", "interrupted: ")), self.err
        return self.err


@dataclass(frozen=True)
class Yard:
    """A project's folder and the command line on it."""

    root: Path

    def __call__(self, *arguments: str, env: dict[str, str] | None = None, limit: float = 400.0) -> Done:
        return modelyard("-C", str(self.root), *arguments, env=env, limit=limit)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """The command in the background, in its own process group."""
        return subprocess.Popen(
            [str(COMMAND), "-C", str(self.root), *arguments],
            env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            start_new_session=True,
        )  # fmt: skip

    def write(self, file: str, text: str) -> None:
        (self.root / file).write_text(text, encoding="utf-8")

    def change(self, file: str, old: str, new: str) -> None:
        text = (self.root / file).read_text(encoding="utf-8")
        assert old in text, f"{file} has no {old!r}"
        self.write(file, text.replace(old, new))

    def copy(self, to: Path) -> Yard:
        """The whole project with its store, as it stands."""
        shutil.copytree(self.root, to)
        (to / ".modelyard" / "service" / "service.json").unlink(missing_ok=True)
        return Yard(to)


def modelyard(
    *arguments: str, env: dict[str, str] | None = None, limit: float = 400.0, cwd: Path | None = None
) -> Done:
    """Runs the installed command as a user would."""
    began = time.monotonic()
    done = subprocess.run(
        [str(COMMAND), *arguments], env={**ENVIRONMENT, **(env or {})}, cwd=cwd,
        capture_output=True, timeout=limit, check=False, encoding="utf-8",
    )  # fmt: skip
    return Done(done.returncode, done.stdout, done.stderr, time.monotonic() - began)


def until(condition: Callable[[], Any], limit: float = 30.0, what: str = "it") -> Any:
    """Polls until a condition holds and returns what it gave."""
    found = poll.until(condition, limit)
    assert found, f"{what} did not happen within {limit:g} s"
    return found


def rows(number: int = 700, *, seed: int = 0, shift: float = 0.0) -> str:
    """A CSV of two numbers and the class that their sum decides, with some noise."""
    chance = random.Random(seed)  # noqa: S311 - data, no secret
    lines = ["a,b,y"]
    for _ in range(number):
        a, b = chance.gauss(shift, 1), chance.gauss(0, 1)
        lines.append(f"{a:.4f},{b:.4f},{'yes' if a + b + chance.gauss(0, 0.3) > 0 else 'no'}")
    return "\n".join(lines) + "\n"


def make_project(root: Path, *, toml: str = PROJECT, recipe: str = RECIPE, data: str | None = None) -> Yard:
    """A small project that runs in seconds."""
    root.mkdir(parents=True)
    yard = Yard(root)
    yard.write("modelyard.toml", toml)
    yard.write("recipe.py", recipe)
    yard.write("data.csv", data or rows())
    return yard


def processes_below(folder: Path) -> list[int]:
    """Living processes that name a folder on their command line."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                line = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if str(folder).encode() in line:
                found.append(int(entry.name))
    return found


def stop_all(folder: Path) -> None:
    """Ends what tests left running below a folder; each process by its own id."""
    for pid in processes_below(folder):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Yard]:
    """A small project that has not run yet."""
    yield make_project(tmp_path / "small")
    stop_all(tmp_path)


@pytest.fixture(scope="session")
def released(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Yard]:
    """The small project after one whole run. Copy it before changing anything."""
    folder = tmp_path_factory.mktemp("released")
    yard = make_project(folder / "small")
    done = yard("run", "--no-serve", "--json")
    assert done.code == 0, done.out + done.err
    yield yard
    stop_all(folder)


@pytest.fixture
def yard(released: Yard, tmp_path: Path) -> Iterator[Yard]:
    """A copy of the small project after one whole run; its service is stopped afterwards."""
    made = released.copy(tmp_path / "small")
    yield made
    made("serve", "stop")
    stop_all(tmp_path)


@pytest.fixture(scope="session")
def command() -> Callable[..., Done]:
    """The installed `modelyard` command as a function of its arguments."""
    return modelyard


@pytest.fixture(scope="session")
def new_project() -> Callable[..., Yard]:
    """Makes a small project in a folder that is not there yet."""
    return make_project


@pytest.fixture(scope="session", name="until")
def until_fixture() -> Callable[..., Any]:
    """Polls a condition with a deadline."""
    return until


@pytest.fixture(scope="session")
def csv_rows() -> Callable[..., str]:
    """The small project's data, of another seed, length or place."""
    return rows


@pytest.fixture(scope="session", name="processes_below")
def processes_below_fixture() -> Callable[[Path], list[int]]:
    """Which living processes name a folder."""
    return processes_below


@pytest.fixture(scope="session")
def quick() -> Callable[..., Done]:
    """The same door in this process: for tables of cases, where a process each would be slow."""
    return in_process


def in_process(*arguments: str) -> Done:
    """Runs the command line's own `main` and gives what it printed and the code it left with."""
    from modelyard.cli import main as door

    out, err, before, code = io.StringIO(), io.StringIO(), sys.argv, 0
    began = time.monotonic()
    sys.argv = ["modelyard", *arguments]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            door.main()
    except SystemExit as left:
        code = left.code if isinstance(left.code, int) else 1
    finally:
        sys.argv = before
    return Done(code, out.getvalue(), err.getvalue(), time.monotonic() - began)
