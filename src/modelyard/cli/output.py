"""How commands print: a table or a sentence for people, JSON for machines, the same facts in both."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])


def json_option(command: F) -> F:
    """The `--json` flag that every command takes."""
    made: F = click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")(command)
    return made


def say(text: str = "") -> None:
    """One line for people."""
    click.echo(text)


def give(value: Any) -> None:
    """One JSON document for machines."""
    click.echo(json.dumps(value, ensure_ascii=False, indent=2 if sys.stdout.isatty() else None))


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A plain table: columns as wide as their content, the last one free."""
    if not rows:
        return
    every = [list(head), *([str(cell) for cell in row] for row in rows)]
    widths = [max(len(row[index]) for row in every) for index in range(len(head))]
    for number, row in enumerate(every):
        cells = [cell.ljust(width) for cell, width in zip(row[:-1], widths, strict=False)]
        line = "  ".join([*cells, row[-1]])
        say(click.style(line, bold=True) if number == 0 else line)


def mark(passed: bool | None) -> str:
    """Pass, fail or neither, as one word with colour."""
    if passed is None:
        return "-"
    return click.style("pass", fg="green") if passed else click.style("FAIL", fg="red", bold=True)
