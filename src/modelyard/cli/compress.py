"""`modelyard compress`: the loop up to the compress step, or with `--search` a search over plans."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

import click

from modelyard.cli.opened import the_project, the_store
from modelyard.cli.output import give, json_option, say, table
from modelyard.cli.step import run_step
from modelyard.cli.watching import observer
from modelyard.core.progress import Progress, quiet

if TYPE_CHECKING:
    from modelyard.lifecycle.searching import Searched

INTERRUPTED = 130
"""The exit code after Ctrl-C, as everywhere."""


class Budget(click.ParamType[float]):
    """A duration with its unit: 4m, 90s, 1h."""

    name = "duration"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        from modelyard.core.unit import seconds

        try:
            found = seconds(value) if isinstance(value, str | int | float) else 0.0
        except ValueError as error:
            self.fail(str(error), param, ctx)
        if found <= 0:
            self.fail(f"{value!r} is not a duration above zero", param, ctx)
        return found


def command(name: str, about: str) -> click.Command:
    @click.command(name, help=f"{about} Earlier steps run first where they have to.")
    @click.option("--search", is_flag=True, help="Search over plans on the real target; keep every trial.")
    @click.option("--budget", type=Budget(), default="4m", show_default=True, help="Time for the search.")
    @click.option(
        "--target", "targets", multiple=True,
        help="An engine to search on: cpu, openvino, ... Give it again for several; else [compress] targets.",
    )  # fmt: skip
    @click.option("--trials", type=click.IntRange(1), help="Stop after so many plans.")
    @click.option("--plan", "plans", multiple=True, help='A plan to try: "low-rank(0.9) > int8-static".')
    @click.option("--train", "train_too", is_flag=True, help="Try plans that train between their steps, too.")
    @click.option(
        "--sampler", type=click.Choice(["tpe", "nsga2", "random"]), default="tpe", show_default=True,
        help="How the next plan is chosen.",
    )  # fmt: skip
    @json_option
    @click.pass_context
    def compress(
        ctx: click.Context, search: bool, budget: float, targets: tuple[str, ...], trials: int | None,
        plans: tuple[str, ...], train_too: bool, sampler: str, as_json: bool,
    ) -> None:  # fmt: skip
        if not search:
            run_step(ctx, name, as_json)
            return
        from modelyard.lifecycle.searching import search_project

        project = the_project(ctx.obj)
        with the_store(project) as store:
            done = search_project(
                project, store, observer(as_json), targets=targets or None, budget=budget, trials=trials,
                sampler=sampler, passes=plans or None, train_too=train_too,
                progress=quiet if as_json and not sys.stderr.isatty() else _live(),
            )  # fmt: skip
        if as_json:
            document = done.found.to_json()
            where = None if done.picture is None else str(done.picture)
            give({**(document if isinstance(document, dict) else {}), "picture": where})
        else:
            _show(done, used=project.compress.search is not False)
        if done.found.interrupted:
            ctx.exit(INTERRUPTED)

    return compress


def _live() -> Progress:
    """On stderr: a line that is written over on a terminal, a line a plan elsewhere."""
    from modelyard.core.unit import show_seconds

    began, terminal = time.monotonic(), sys.stderr.isatty()

    def shown(fraction: float, text: str) -> None:
        line = f"{'search':<10} {fraction:4.0%}  {text[:64]}  {show_seconds(time.monotonic() - began)}"
        click.echo(f"\r\033[2K{line}" if terminal else line, nl=not terminal, err=True)
        if terminal and fraction >= 1:
            click.echo("\r\033[2K", nl=False, err=True)

    return shown


def _show(done: Searched, *, used: bool) -> None:
    from modelyard.compress.search.found import counted
    from modelyard.compress.search.page import choice, plan_head, plan_rows

    found = done.found
    say()
    table(plan_head(found), plan_rows(found))
    say()
    say(f"{counted(found.points)} of {found.size} · {found.stopped}")
    say(f"chosen     {choice(found)}")
    say(f"           {found.why}")
    if found.tuned:
        say(f"           {found.tuned}")
    if done.picture is not None:
        say(f"picture    {done.picture}")
    if found.interrupted or (found.chosen is None and not found.settings):
        return
    if used:
        say("next       modelyard run: the compress step judges this plan again and releases what passes")
    else:
        say("next       set search = true under [compress] for the loop to use this plan")
