"""Writes docs/reference from the code itself: settings, commands, exit codes, passes. `--check` compares."""

from __future__ import annotations

import inspect
import sys
from pathlib import Path

import click
from reference_passes import with_passes

from modelyard.cli.commands import COMMANDS
from modelyard.cli.main import root
from modelyard.cli.monitor import ALARMED
from modelyard.cli.run import STOPPED
from modelyard.core import errors
from modelyard.lifecycle.option import describe
from modelyard.lifecycle.options import LISTS, SECTIONS

FOLDER = Path(__file__).parents[1] / "docs" / "reference"


def settings() -> str:
    lines = [
        "# Settings: modelyard.toml",
        "",
        "Made from the code by `make docs`. Durations are written `500ms`, `30s`, `2h`, `30d`,",
        'sizes `300kB`, margins as a number in the metric\'s unit or as a share (`"5%"`).',
        "",
        "| key | meaning |",
        "| --- | --- |",
        "| `version` | required: 1 |",
        "| `name` | required: what the project, its releases and by default its endpoint are called |",
        "| `task` | required: `classification` or `regression` |",
    ]
    tables = [(f"[{name}]", section) for name, section in SECTIONS.items()]
    tables += [(f"[[{name}]]", section) for name, section in LISTS.items()]
    for title, section in tables:
        about = (inspect.getdoc(section) or "").partition(": ")[2]
        lines += ["", f"## `{title}`", "", about[:1].upper() + about[1:], ""]
        lines += ["| key | default | meaning |", "| --- | --- | --- |"]
        lines += [f"| `{key}` | {_default(default)} | {text} |" for key, default, text in describe(section)]
    return "\n".join(lines) + "\n"


def _default(text: str) -> str:
    if text in ("required", "None"):
        return "required" if text == "required" else "not set"
    return (
        f"`{text}`".replace("(", "[")
        .replace(")", "]")
        .replace("'", '"')
        .replace("True", "true")
        .replace("False", "false")
    )


def commands() -> str:
    lines = ["# Commands", "", "Made from the code by `make docs`. Every command takes `--json`.", ""]
    context = click.Context(root, info_name="modelyard")
    for name in COMMANDS:
        command = root.get_command(context, name)
        if command is not None:
            lines += _help(command, name, context)
    return "\n".join(lines) + "\n"


def _help(command: click.Command, name: str, parent: click.Context) -> list[str]:
    context = click.Context(command, info_name=name, parent=parent, max_content_width=100)
    text = command.get_help(context)
    lines = [
        f"## `{context.command_path}`",
        "",
        "```text",
        *[line.rstrip() for line in text.splitlines()],
        "```",
        "",
    ]
    if isinstance(command, click.Group):
        for child in sorted(command.commands):
            lines += _help(command.commands[child], child, context)
    return lines


def exit_codes() -> str:
    lines = [
        "# Exit codes",
        "",
        "Made from the code by `make docs`.",
        "",
        "| code | meaning |",
        "| --- | --- |",
        "| 0 | done |",
        "| 1 | a failure without a class of its own |",
        "| 2 | the command line is wrong |",
    ]
    seen: dict[int, str] = {}
    for value in vars(errors).values():
        if inspect.isclass(value) and issubclass(value, errors.ModelyardError) and value.exit_code > 1:
            seen.setdefault(
                value.exit_code, f"`{value.__name__}`: {(inspect.getdoc(value) or '').splitlines()[0]}"
            )
    seen[STOPPED] = "the loop ran and stopped at a gate, a canary or a broken contract"
    seen[ALARMED] = "`modelyard monitor`: an alarm fired"
    seen[130] = "interrupted; the same command goes on from there"
    lines += [f"| {code} | {text} |" for code, text in sorted(seen.items())]
    return "\n".join(lines) + "\n"


def compression() -> str:
    return with_passes((FOLDER / "compression.md").read_text())


def main() -> int:
    check = "--check" in sys.argv[1:]
    stale = []
    pages = {
        "settings": settings(), "commands": commands(), "exit-codes": exit_codes(),
        "compression": compression(),
    }  # fmt: skip
    for name, text in pages.items():
        path = FOLDER / f"{name}.md"
        if path.exists() and path.read_text() == text:
            continue
        stale.append(path.name)
        if not check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    if check and stale:
        print(f"docs/reference is not what the code says ({', '.join(stale)}): run make docs")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
