"""`modelyard check`: everything that can be known without running anything."""

from __future__ import annotations

import click

from modelyard.cli.opened import the_project
from modelyard.cli.output import give, json_option, say


def command(name: str, about: str) -> click.Command:
    @click.command(name, help=about)
    @json_option
    @click.pass_context
    def check(ctx: click.Context, as_json: bool) -> None:
        from modelyard.lifecycle.check import check_project

        project = the_project(ctx.obj)
        lines = check_project(project)
        if as_json:
            give({"project": project.name, "checked": [line.__dict__ for line in lines]})
            return
        for line in lines:
            say(f"{'ok' if line.holds else 'note':<5} {line.what}: {line.said}")
        say(f"{project.name} is ready: modelyard run")

    return check
