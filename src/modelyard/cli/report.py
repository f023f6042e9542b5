"""`modelyard report`: one HTML page about the release, its evidence and its traffic."""

from __future__ import annotations

from pathlib import Path

import click

from modelyard.cli.opened import the_project, the_store
from modelyard.cli.output import give, json_option, say


def command(name: str, about: str) -> click.Command:
    @click.command(name, help=about)
    @click.option(
        "-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="Where to write it."
    )
    @json_option
    @click.pass_context
    def report(ctx: click.Context, output: Path | None, as_json: bool) -> None:
        from modelyard.lifecycle.reporting import write_report_page

        project = the_project(ctx.obj)
        with the_store(project) as store:
            path = write_report_page(project, store, output)
        if as_json:
            give({"report": str(path)})
        else:
            say(f"report     {path}")

    return report
