"""The rooms stand in one straight order, importing the package is light, files stay small."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SRC = Path(__file__).parents[1] / "src" / "modelyard"
ROOMS = [
    "core",
    "measure",
    "store",
    "data",
    "model",
    "train",
    "compress",
    "export",
    "release",
    "serve",
    "monitor",
    "score",
    "lifecycle",
]
LAST = ["cli", "ui"]
FILES = sorted(SRC.rglob("*.py"))
HEAVY = {
    *("torch", "sklearn", "optuna", "pandas", "pyarrow", "duckdb", "onnx", "onnxruntime", "sqlalchemy"),
    *(
        "alembic",
        "scipy",
        "lightgbm",
        "matplotlib",
        "boto3",
        "uvloop",
        "httptools",
        "lightning_fabric",
        "numpy",
    ),
    *("cryptography", "grpc", "openvino"),
}


def imported(path: Path) -> list[tuple[int, str]]:
    """Every module that a file imports, inside functions too, with its line."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found.append((node.lineno, "." * node.level + (node.module or "")))
    return found


def rank(room: str) -> int:
    return len(ROOMS) if room in LAST else ROOMS.index(room)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SRC)))
def test_a_room_imports_only_rooms_to_its_left(path: Path) -> None:
    parts = path.relative_to(SRC).parts
    if len(parts) == 1:
        return
    for line, name in imported(path):
        assert not name.startswith("."), f"{path}:{line}: relative import; write it in full"
        assert name != "modelyard", f"{path}:{line}: imports the package from inside"
        if name.startswith("modelyard."):
            other = name.split(".")[1]
            if other == parts[0]:
                continue
            assert other not in LAST, f"{path}:{line}: {parts[0]} imports {other}"
            assert rank(other) < rank(parts[0]), f"{path}:{line}: {parts[0]} imports {other}"


def test_every_room_is_known() -> None:
    assert sorted(path.name for path in SRC.iterdir() if path.is_dir() and path.name[0] != "_") == sorted(
        ROOMS + LAST
    )


def test_rooms_inits_hold_a_docstring_only() -> None:
    for room in ROOMS + LAST:
        body = ast.parse((SRC / room / "__init__.py").read_text()).body
        assert len(body) == 1, f"{room}/__init__.py"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SRC)))
def test_files_stay_small(path: Path) -> None:
    lines = path.read_text().count("\n")
    assert lines <= 450, f"{path} has {lines} lines: it probably holds two ideas"


def test_nothing_is_ever_unpickled() -> None:
    for path in FILES:
        for line, name in imported(path):
            top = name.split(".")[0]
            assert top not in ("pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"), (
                f"{path}:{line}"
            )


def loaded(code: str) -> set[str]:
    script = code + "\nimport sys; print(' '.join(sorted({name.split('.')[0] for name in sys.modules})))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_importing_the_package_loads_nothing_heavy() -> None:
    assert not loaded("import modelyard") & HEAVY


def test_the_command_lines_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; sys.argv = ['modelyard', '--help']\n"
        "from modelyard.cli.main import main\n"
        "import contextlib, io\n"
        "with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit): main()"
    )
    assert not loaded(code) & HEAVY


@pytest.mark.parametrize("room", ROOMS + LAST)
def test_importing_a_room_loads_nothing_heavy(room: str) -> None:
    assert not loaded(f"import modelyard.{room}") & (HEAVY - {"numpy"})


def test_no_private_word_in_the_tree() -> None:
    root = SRC.parents[1]
    done = subprocess.run(["git", "ls-files"], cwd=root, capture_output=True, text=True, check=True)
    for name in done.stdout.split():
        path = root / name
        if path.suffix in (".py", ".md", ".toml", ".html", ".lock") and path.exists():
            text = path.read_text()
            for word in ("/work" + "/", "pypi" + ".org", "shared" + "/design"):
                assert word not in text, f"{name} names {word}"
