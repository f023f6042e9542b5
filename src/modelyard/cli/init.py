"""`modelyard init NAME`: a project that runs as it is."""

from __future__ import annotations

from pathlib import Path

import click

from modelyard.cli.output import give, json_option, say


def command(name: str, about: str) -> click.Command:
    @click.command(name, help=about)
    @click.argument("project_name", metavar="NAME")
    @click.option(
        "--task", type=click.Choice(["classification", "regression"]), help="Guessed from the label."
    )
    @click.option("--from", "source", type=click.Path(path_type=Path), help="A .csv or .parquet of yours.")
    @click.option("--label", help="The column to predict; the last one without it.")
    @json_option
    @click.pass_context
    def init(
        ctx: click.Context, project_name: str, task: str | None, source: Path | None, label: str | None,
        as_json: bool,
    ) -> None:  # fmt: skip
        from modelyard.lifecycle.init import init_project

        made = init_project(
            Path(ctx.obj or "."),
            project_name,
            task=task,  # type: ignore[arg-type]
            source=source,
            label=label,
        )
        if as_json:
            give(
                {"project": str(made.root), "task": made.task, "label": made.label, "notes": list(made.notes)}
            )
            return
        say(f"{made.root}: {made.task} of {made.label!r}")
        for note in made.notes:
            say(f"  note: {note}")
        say(f"next: cd {made.root} && modelyard run")

    return init
