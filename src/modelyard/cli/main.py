"""The command line's one door: finds the command, turns every failure into a sentence and an exit code."""

from __future__ import annotations

import importlib
import json
import os
import sys
from typing import Any

import click

from modelyard.cli.commands import COMMANDS
from modelyard.core.errors import ModelyardError, StoreError


class LazyGroup(click.Group):
    """Lists commands from a table and imports a command's file only when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"modelyard.cli.{COMMANDS[cmd_name].module}")
        made: click.Command = module.command(cmd_name, COMMANDS[cmd_name].about)
        return made

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            from modelyard.core.names import did_you_mean

            ctx.fail(f"no command {args[0]!r}; {did_you_mean(args[0], COMMANDS)}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        groups: dict[str, list[tuple[str, str]]] = {}
        for name, command in COMMANDS.items():
            groups.setdefault(command.group, []).append((name, command.about))
        for title, rows in groups.items():
            with formatter.section(title):
                formatter.write_dl(rows)


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    help="Modelyard takes a model from data to a monitored service and back. A model ships on evidence.",
)
@click.version_option(package_name="modelyard", message="%(version)s")
@click.option(
    "-C", "--project", "folder", metavar="DIR", help="Work in this folder instead of the current one."
)
@click.pass_context
def root(ctx: click.Context, folder: str | None) -> None:
    ctx.obj = folder


def main() -> None:
    """Runs the command line and exits with the documented code."""
    as_json = "--json" in sys.argv[1:]
    try:
        code = root.main(prog_name="modelyard", standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except ModelyardError as error:
        _say(as_json, error.facts(), f"error: {error}")
        sys.exit(error.exit_code)
    except click.exceptions.Exit as done:
        sys.exit(done.exit_code)
    except click.ClickException as error:
        _say(as_json, {"kind": "Usage", "what": error.format_message()}, f"error: {error.format_message()}")
        sys.exit(2)
    except (KeyboardInterrupt, click.Abort):
        _say(as_json, {"kind": "Interrupted", "what": "stopped by the user"},
             "interrupted: what is finished is kept; the same command goes on from there")  # fmt: skip
        sys.exit(130)
    except BrokenPipeError:
        # The reader went away (`| head`): not our failure, and nothing more can be printed.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except Exception as error:
        if os.environ.get("MODELYARD_TRACEBACK"):
            raise
        sys.exit(_unforeseen(as_json, error))


def _unforeseen(as_json: bool, error: Exception) -> int:
    """What no room has turned into an error of ours: the system's refusals, and defects. Its exit code."""
    fix = "set MODELYARD_TRACEBACK=1 to see where it comes from"
    if isinstance(error, OSError):
        refused = StoreError(f"the system refused: {error.strerror or error}", value=error.filename, fix=fix)
        _say(as_json, refused.facts(), f"error: {refused}")
        return refused.exit_code
    what = f"a defect of Modelyard, {type(error).__name__}: {error}"
    _say(as_json, {"kind": "Defect", "what": what, "fix": fix}, f"error: {what}; please report it; {fix}")
    return ModelyardError.exit_code


def _say(as_json: bool, facts: dict[str, Any], sentence: str) -> None:
    if as_json:
        click.echo(json.dumps({"error": facts}))
    else:
        click.echo(sentence, err=True)
