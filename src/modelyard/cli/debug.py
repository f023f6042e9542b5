"""`modelyard debug ID`: one prediction taken apart."""

from __future__ import annotations

import dataclasses

import click

from modelyard.cli.opened import the_project, the_store
from modelyard.cli.output import give, json_option, say, table


def command(name: str, about: str) -> click.Command:
    @click.command(name, help=about)
    @click.argument("prediction", metavar="ID", required=False)
    @click.option("--last", type=click.IntRange(1, 1000), default=5, show_default=True,
                  help="Without an ID: list this many of the newest.")  # fmt: skip
    @json_option
    @click.pass_context
    def debug(ctx: click.Context, prediction: str | None, last: int, as_json: bool) -> None:
        from modelyard.core.unit import show_seconds
        from modelyard.lifecycle.taking_apart import newest_predictions, take_apart

        project = the_project(ctx.obj)
        with the_store(project) as store:
            if prediction is None:
                rows = newest_predictions(project, store, last)
                give(rows) if as_json else table(
                    ("id", "time", "answer"), [(row["id"], row["time"], row["answer"]) for row in rows]
                )
                return
            found = take_apart(project, store, prediction)
        if as_json:
            give(dataclasses.asdict(found))
            return
        say(f"{found.id} at {found.time} by {found.release} in {show_seconds(found.latency)}")
        say(f"replayed: largest difference {found.difference:.2g}")
        for breach in found.breaches:
            say(f"broke the contract: {breach}")
        say()
        rows_ = [(item.what, item.instead, f"{item.change:+.4g}") for item in found.effects]
        table(("replaced", "by", "the answer loses"), rows_)
        say()
        like = [(str(item.row), item.key, item.label, f"{item.distance:.3f}") for item in found.neighbours]
        table(("nearest training row", "key", "label", "distance"), like)
        say()
        nodes = [
            (item.name, str(list(item.shape)), "" if item.mean is None else f"{item.low:.4g}",
             "" if item.mean is None else f"{item.mean:.4g}", "" if item.mean is None else f"{item.high:.4g}")
            for item in found.nodes
        ]  # fmt: skip
        table(("node value", "shape", "low", "mean", "high"), nodes)

    return debug
