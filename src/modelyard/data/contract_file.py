"""`contract.toml`: written once, then read and edited by people; what they wrote stays as they wrote it."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from modelyard.core.errors import ContractError
from modelyard.core.files import write_atomic
from modelyard.core.names import did_you_mean
from modelyard.data.contract import FORMAT, KINDS, PRIVACIES, ROLES, Column, Contract

_TOP = ("version", "name", "owner", "source", "freshness", "columns")
_KEYS = tuple(field.name for field in fields(Column) if field.name != "name")
_DEFAULTS = {field.name: field.default for field in fields(Column) if field.default is not MISSING}
_ALWAYS = ("kind", "role")

HEADER = f"""\
# What the data promises. Modelyard wrote this file from what it saw; correct it, it will keep your edits.
#
# kind         {", ".join(KINDS)}
# role         {", ".join(ROLES)}
# missing_max  largest share of missing values, 0 (none) to 1; default 0
# minimum, maximum   the range of a number, or of every element of a tensor; leave out for no bound
# categories   every value that a category may have; for the label: in the order of the model's answers
# shape, datatype    of a tensor, for example [28, 28] and "FP32"
# privacy      {", ".join(PRIVACIES)}; default none
# owner, source, retention ("90d"), deprecated (true), description   for whoever answers for the column
# freshness    largest age of the newest row by the column with the role order, for example "7d"
"""


def read_contract(path: Path) -> Contract:
    """The contract in a file; `ContractError` names the file, the line, the column, the key and the rule."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ContractError(
            "there is no contract", fix="run `modelyard data` to write one", where=str(path)
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ContractError("the contract cannot be read", value=str(error), where=str(path)) from error
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ContractError(
            "the contract is not TOML", value=str(error), fix="correct that line", where=str(path)
        ) from error
    return _contract(document, text, path)


def write_contract(path: Path, contract: Contract) -> None:
    """Writes a contract whole or not at all; comments and order of a file that is there are kept."""
    if not path.exists():
        write_atomic(path, render(contract).encode())
        return
    import tomlkit

    read_contract(path)
    document: Any = tomlkit.parse(path.read_text(encoding="utf-8"))
    for key in ("name", "owner", "source", "freshness"):
        value = getattr(contract, key)
        if document.get(key, "") != value:
            document[key] = value
    columns = document["columns"]
    for name in [name for name in columns if name not in {column.name for column in contract.columns}]:
        del columns[name]
    known = set(columns)
    for column in contract.columns:
        wanted = _shown(column)
        if column.name not in columns:
            columns[column.name] = tomlkit.table()
        table = columns[column.name]
        for key in [key for key in table if key not in wanted and table[key] != _DEFAULTS.get(key)]:
            del table[key]
        for key, value in wanted.items():
            if key not in table and value == _DEFAULTS.get(key) and column.name in known:
                continue
            if key not in table or table[key] != value:
                table[key] = value
    write_atomic(path, tomlkit.dumps(document).encode())


def render(contract: Contract) -> str:
    """A contract as the text of a new file, with a header that explains every key once."""
    lines = [HEADER, f"version = {contract.version}", f"name = {_toml(contract.name)}"]
    lines += [f"{key} = {_toml(getattr(contract, key))}" for key in ("owner", "source", "freshness")]
    for column in contract.columns:
        lines += ["", f"[columns.{_key(column.name)}]"]
        lines += [f"{key} = {_toml(value)}" for key, value in _shown(column).items()]
    return "\n".join(lines) + "\n"


def _shown(column: Column) -> dict[str, Any]:
    """The keys worth writing: kind, role, and whatever is not the default."""
    shown = {}
    for key in _KEYS:
        value = getattr(column, key)
        if key in _ALWAYS or value != _DEFAULTS.get(key):
            shown[key] = list(value) if isinstance(value, tuple) else value
    return shown


def _contract(document: Mapping[str, Any], text: str, path: Path) -> Contract:
    for key in document:
        if key not in _TOP:
            raise ContractError(
                f"the contract has no key {key!r}",
                fix=did_you_mean(key, _TOP),
                where=_place(text, path, "", key),
            )
    if document.get("version") != FORMAT:
        raise ContractError(
            "version is wrong", value=document.get("version", "nothing"), rule=f"version = {FORMAT}",
            where=_place(text, path, "", "version"),
        )  # fmt: skip
    for key in ("name", "owner", "source", "freshness"):
        if not isinstance(document.get(key, ""), str):
            raise ContractError(
                f"{key} is wrong", value=document[key], rule="a text", fix="put it in quotes",
                where=_place(text, path, "", key),
            )  # fmt: skip
    columns = document.get("columns", {})
    if not isinstance(columns, dict):
        raise ContractError(
            "columns is wrong", value=columns, rule="tables such as [columns.age]", where=str(path)
        )
    read = tuple(_column(name, facts, text, path) for name, facts in columns.items())
    try:
        return Contract(
            document.get("name", path.stem), read, document.get("owner", ""), document.get("source", ""),
            document.get("freshness", ""),
        )  # fmt: skip
    except ContractError as error:
        error.where = str(path)
        raise


def _column(name: str, facts: Any, text: str, path: Path) -> Column:
    if not isinstance(facts, dict):
        raise ContractError(
            f"column {name!r} is wrong", value=facts, rule=f"a table [columns.{_key(name)}]",
            where=_place(text, path, "columns", name),
        )  # fmt: skip
    for key in facts:
        if key not in _KEYS:
            raise ContractError(
                f"column {name!r} has no key {key!r}", value=facts[key], fix=did_you_mean(key, _KEYS),
                where=_place(text, path, name, key),
            )  # fmt: skip
    try:
        return Column.from_json({"name": name, **facts})
    except ContractError as error:
        key = next((key for key in _KEYS if f": {key} is wrong" in error.what), "")
        error.where = _place(text, path, name, key)
        raise


def _place(text: str, path: Path, column: str, key: str) -> str:
    """`file:line` of a key, or of its column's header; tomllib does not keep lines, so they are looked up."""
    inside = not column
    found = 0
    for number, line in enumerate(text.splitlines(), 1):
        header = re.match(r"\s*\[(.*)\]\s*(?:#.*)?$", line)
        if header and "=" not in line:
            inside = header[1].strip() in (
                f"columns.{_key(column)}",
                f'columns."{column}"',
                f"columns.'{column}'",
            )
            found = number if inside else found
        elif inside and key and re.match(rf"\s*(?:{re.escape(key)}|{re.escape(_toml(key))})\s*=", line):
            return f"{path}:{number}"
    return f"{path}:{found}" if found else str(path)


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _toml(name)


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return '"' + "".join(_escape(letter) for letter in escaped) + '"'
    if isinstance(value, float):
        # As tomllib reads it back, and without the noise of 120.0.
        return str(int(value)) if value == int(value) and abs(value) < 1e15 else repr(value)
    if isinstance(value, list):
        one_line = "[" + ", ".join(_toml(item) for item in value) + "]"
        if len(one_line) <= 100:
            return one_line
        return "[\n" + "".join(f"    {_toml(item)},\n" for item in value) + "]"
    return str(value)


def _escape(letter: str) -> str:
    return letter if letter >= " " and letter != "\x7f" else f"\\u{ord(letter):04x}"
