"""`modelyard data|train|compress|validate|release`: the loop up to one step."""

from __future__ import annotations

import click

from modelyard.cli.opened import the_project, the_store
from modelyard.cli.output import give, json_option, say
from modelyard.cli.run import STOPPED
from modelyard.cli.watching import observer


def command(name: str, about: str) -> click.Command:
    @click.command(name, help=f"{about} Earlier steps run first where they have to.")
    @json_option
    @click.pass_context
    def step(ctx: click.Context, as_json: bool) -> None:
        run_step(ctx, name, as_json)

    return step


def run_step(ctx: click.Context, name: str, as_json: bool) -> None:
    """Runs the loop up to a step and shows it; ends the command with `STOPPED` when the loop stopped."""
    from modelyard.lifecycle.loop import run_loop

    project = the_project(ctx.obj)
    with the_store(project) as store:
        done = run_loop(project, store, observer(as_json), until=name, command=f"modelyard {name}")
    record = done.get(name)
    if as_json:
        give({"steps": [item.to_json() for item in done.values()]})
    elif record is not None:
        notes = record.values.get("notes")
        for note in notes if isinstance(notes, list) else ():
            say(f"{'':<10} note: {note}")
    if record is None or record.stops:
        ctx.exit(STOPPED)
