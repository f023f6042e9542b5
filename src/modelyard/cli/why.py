"""`modelyard why`: which steps would run, and what changed."""

from __future__ import annotations

import click

from modelyard.cli.opened import the_project, the_store
from modelyard.cli.output import give, json_option, say


def command(name: str, about: str) -> click.Command:
    @click.command(name, help=about)
    @click.argument("step", required=False)
    @json_option
    @click.pass_context
    def why(ctx: click.Context, step: str | None, as_json: bool) -> None:
        from modelyard.lifecycle.why import explain

        project = the_project(ctx.obj)
        with the_store(project) as store:
            rows = explain(project, store, step)
        if as_json:
            give([{"step": row.step, "cached": row.cached, "reasons": list(row.reasons)} for row in rows])
            return
        for row in rows:
            say(f"{row.step:<10} {'cached: nothing that it reaches has changed' if row.cached else 'runs'}")
            for reason in row.reasons:
                say(f"{'':<10}   {reason}")

    return why
