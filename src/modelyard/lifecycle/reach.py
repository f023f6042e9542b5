"""The code that a step reaches, as a digest: part of the step's cache key.

Imports are read, not run. In our own package the house rule that every import is written as
`from modelyard.room.file import name` makes the reading exact; in a user's project every file that is
reached from the entry file by an `import` of a sibling counts.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from modelyard.core.digest import Digest, digest_bytes, digest_json

_OURS = re.compile(r"^[ \t]*from (modelyard(?:\.\w+)+) import", re.MULTILINE)


def package_code(module: str, package: Path | None = None) -> dict[str, Digest]:
    """Digest by module of everything of ours that `module` imports, itself included.

    `package` is the folder that holds `modelyard/`, found from this file by default.
    """
    root = package or Path(__file__).parents[2]
    found: dict[str, Digest] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        path = root.joinpath(*name.split(".")).with_suffix(".py")
        if not path.is_file():
            path = root.joinpath(*name.split("."), "__init__.py")
        source = path.read_bytes()
        found[name] = digest_bytes(source)
        waiting += _OURS.findall(source.decode())
    return dict(sorted(found.items()))


def project_code(entry: Path) -> dict[str, Digest]:
    """Digest by file name of a user's file and of every sibling module that it imports.

    A file that does not parse is digested as it is: running it will tell what is wrong.
    """
    root = entry.parent
    found: dict[str, Digest] = {}
    waiting = [entry]
    while waiting:
        path = waiting.pop()
        label = path.relative_to(root).as_posix()
        if label in found or not path.is_file():
            continue
        source = path.read_bytes()
        found[label] = digest_bytes(source)
        try:
            tree = ast.parse(source)
        except (SyntaxError, ValueError):
            continue
        waiting += [path for name in _imported(tree) for path in _candidates(root, name)]
    return dict(sorted(found.items()))


def code_digest(files: dict[str, Digest]) -> Digest:
    """One digest of several files by name."""
    return digest_json(files)


def _imported(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _candidates(root: Path, name: str) -> Iterator[Path]:
    parts = name.split(".")
    for end in range(1, len(parts) + 1):
        yield root.joinpath(*parts[:end]).with_suffix(".py")
        yield root.joinpath(*parts[:end], "__init__.py")
