"""Checks a project without running it: every file it names, parsed; every name in it, known."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path

from modelyard.compress.catalogue import PASSES
from modelyard.core.errors import ProjectError
from modelyard.core.names import did_you_mean
from modelyard.data.contract_file import read_contract
from modelyard.lifecycle.project import FILE, Project, expand


@dataclass(frozen=True)
class Checked:
    """One thing that was looked at; `holds` is false for what will be made by the first run."""

    what: str
    said: str
    holds: bool = True


def check_project(project: Project) -> list[Checked]:
    """What was checked; raises `ProjectError` or `ContractError` for the first thing that is wrong.

    Reads and parses files only: nothing of the user's is imported or run.
    """
    found = [Checked(FILE, f"{project.task} {project.name!r}, {len(project.requirements)} requirements")]
    found.append(_source(project))
    found.append(_function(project, project.train.recipe, "[train] recipe"))
    found.append(_contract(project))
    for name in project.compress.passes:
        if name not in PASSES.names():
            raise ProjectError(
                "[compress] passes names a pass that is not known",
                value=name,
                fix=did_you_mean(name, PASSES.names()),
                where=str(project.root / FILE),
            )
    found.append(Checked("[compress] passes", ", ".join(project.compress.passes) or "none"))
    found.append(_store(project))
    return found


def _source(project: Project) -> Checked:
    source = project.data.source
    if ".py:" in source:
        return _function(project, source, "[data] source")
    path = project.root / source
    if not path.is_file():
        near = did_you_mean(
            path.name, [item.name for item in path.parent.glob("*")] if path.parent.is_dir() else []
        )
        raise ProjectError("[data] source names a file that is not there", value=str(path), fix=near,
                           where=str(project.root / FILE))  # fmt: skip
    return Checked("[data] source", f"{source}, {path.stat().st_size:,} bytes")


def _function(project: Project, reference: str, key: str) -> Checked:
    file, _, name = reference.partition(":")
    path = project.root / file
    where = str(project.root / FILE)
    if not path.is_file():
        near = did_you_mean(path.name, [item.name for item in project.root.glob("*.py")])
        raise ProjectError(f"{key} names a file that is not there", value=str(path), fix=near, where=where)
    functions = _functions(path)
    if name not in functions:
        raise ProjectError(
            f"{key} names a function that {file} does not have",
            value=name,
            fix=did_you_mean(name, functions),
            where=where,
        )
    return Checked(key, f"{reference}, line {functions[name]}")


def _functions(path: Path) -> dict[str, int]:
    try:
        tree = ast.parse(path.read_bytes(), filename=str(path))
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None)
        raise ProjectError(
            f"{path.name} is not Python",
            value=getattr(error, "msg", str(error)),
            where=f"{path}, line {line}" if line else str(path),
            fix="correct the line",
        ) from error
    made = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    functions = {node.name: node.lineno for node in tree.body if isinstance(node, made)}
    for node in tree.body:
        if isinstance(node, ast.ImportFrom):
            functions |= {alias.asname or alias.name: node.lineno for alias in node.names}
        elif isinstance(node, ast.Assign):
            functions |= {item.id: node.lineno for item in node.targets if isinstance(item, ast.Name)}
    return functions


def _contract(project: Project) -> Checked:
    if not project.contract_path.is_file():
        return Checked(project.data.contract, "will be inferred from the data by the first run", holds=False)
    contract = read_contract(project.contract_path)
    if contract.label.name != project.data.label:
        raise ProjectError(
            f"{project.data.contract} and {FILE} disagree about the label",
            value=contract.label.name,
            rule=f"[data] label = {project.data.label!r}",
            fix="correct one of them",
            where=str(project.contract_path),
        )
    columns = {column.name for column in contract.columns}
    named = [item.column for item in project.slices] + list(project.policy.groups)
    for name in named:
        if name not in columns:
            raise ProjectError(
                "a slice or group names a column that the contract does not have",
                value=name,
                fix=did_you_mean(name, columns),
                where=str(project.root / FILE),
            )
    return Checked(project.data.contract, f"{len(contract.columns)} columns")


def _store(project: Project) -> Checked:
    try:
        places = [expand(project.store.records), expand(project.store.objects)]
    except KeyError as error:
        raise ProjectError(
            "an environment variable that [store] names is not set",
            value=str(error.args[0]),
            fix=f"export {error.args[0]}=...",
            where=str(project.root / FILE),
        ) from error
    kinds = [place.partition(":")[0] for place in places if place]
    return Checked("[store]", " and ".join(kinds) if kinds else f"embedded in {project.store.root}/")
