"""Imports of files that lie beside a recipe, kept apart from those of every other project."""

from __future__ import annotations

import ast
import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType


@contextmanager
def project_imports(folder: Path, own: dict[str, ModuleType]) -> Iterator[None]:
    """Lets `import features` find `folder/features.py` while it lasts.

    `own` holds the project's modules between two uses. Whatever else was imported under the same names is
    set aside and put back. No bytecode is written, so that an edit within the same second is seen.
    """
    names = siblings(folder)

    def mine() -> list[str]:
        return [name for name in sys.modules if name.partition(".")[0] in names]

    aside = {name: sys.modules.pop(name) for name in mine()}
    sys.modules.update(own)
    path, flag = str(folder), sys.dont_write_bytecode
    sys.path.insert(0, path)
    sys.dont_write_bytecode = True
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.dont_write_bytecode = flag
        if path in sys.path:
            sys.path.remove(path)
        own.update({name: sys.modules.pop(name) for name in mine()})
        sys.modules.update(aside)


def siblings(folder: Path) -> frozenset[str]:
    """The top-level names that can be imported from a folder; the standard library's are left alone."""
    names = {path.stem for path in folder.glob("*.py")}
    names |= {path.parent.name for path in folder.glob("*/*.py")}
    return frozenset(names - sys.stdlib_module_names - {"modelyard", "__pycache__"})


def sources(path: Path) -> tuple[Path, ...]:
    """A Python file and the files beside it that it imports, directly or not, at any level; sorted.

    The imports are read from the text, so that nothing runs; a file that does not parse imports nothing.
    """
    folder, found, open_ends = path.parent, {path}, [path]
    while open_ends:
        for name in _imported(open_ends.pop()):
            for candidate in _files(folder, name):
                if candidate not in found:
                    found.add(candidate)
                    open_ends.append(candidate)
    return tuple(sorted(found))


def _imported(path: Path) -> set[str]:
    try:
        tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return set()
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            # A relative import inside a package of the project may mean any of its files.
            package = path.parent.name if node.level else ""
            base = ".".join(part for part in (package, node.module) if part)
            names |= {base} | {f"{base}.{alias.name}" for alias in node.names}
    return names


def _files(folder: Path, name: str) -> Iterator[Path]:
    parts = name.split(".")
    for depth in range(1, len(parts) + 1):
        base = folder.joinpath(*parts[:depth])
        for candidate in (base.with_suffix(".py"), base / "__init__.py"):
            if candidate.is_file():
                yield candidate
