"""`modelyard export TARGET`: a release taken elsewhere."""

from __future__ import annotations

from pathlib import Path

import click

from modelyard.cli.opened import the_project, the_store
from modelyard.cli.output import give, json_option, say


def command(name: str, about: str) -> click.Command:
    @click.command(name, help=about)
    @click.argument("target", default="onnx")
    @click.option(
        "-o",
        "--output",
        type=click.Path(file_okay=False, path_type=Path),
        default=Path("exported"),
        show_default=True,
        help="The folder to write.",
    )
    @click.option("--version", type=int, help="The release; the serving one without it.")
    @json_option
    @click.pass_context
    def export(ctx: click.Context, target: str, output: Path, version: int | None, as_json: bool) -> None:
        from modelyard.lifecycle.exporting import export_release

        project = the_project(ctx.obj)
        with the_store(project) as store:
            done = export_release(project, store, target, output, version)
        if as_json:
            give(done)
        else:
            say(f"{done['release']} as {target} in {output}: {done['why']}")

    return export
