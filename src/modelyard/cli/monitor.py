"""`modelyard monitor [--watch]`: the live predictions against the release's own profile."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from modelyard.cli.opened import the_project, the_store
from modelyard.cli.output import give, json_option, mark, say

if TYPE_CHECKING:
    from modelyard.monitor.window_report import WindowReport

ALARMED = 16
"""Exit code when an alarm fired."""


def command(name: str, about: str) -> click.Command:
    @click.command(name, help=about)
    @click.option("--watch", is_flag=True, help="Go on, judging each window as it closes.")
    @click.option("--every", default=2.0, show_default=True, help="Seconds between two looks at the log.")
    @json_option
    @click.pass_context
    def monitor(ctx: click.Context, watch: bool, every: float, as_json: bool) -> None:
        from modelyard.lifecycle.watching import Watch

        project = the_project(ctx.obj)
        alarmed = False
        with the_store(project) as store:
            watching = Watch(project, store)
            while True:
                for report in watching.look(whole=not watch):
                    alarmed = alarmed or bool(report.alarms)
                    give(report.to_json()) if as_json else _show(report)
                if not watch:
                    break
                time.sleep(every)
        if alarmed:
            ctx.exit(ALARMED)

    return monitor


def _show(report: WindowReport) -> None:
    if not report.rows:
        say("no new rows in the prediction log")
        return
    when = f"{time.strftime('%H:%M:%S', time.localtime(report.since))} to " + time.strftime(
        "%H:%M:%S", time.localtime(report.until)
    )
    say(click.style(f"window {report.look}  {report.rows:,} rows, {when}", bold=True))
    held = [verdict for verdict in report.verdicts if verdict.passed]
    for verdict in report.verdicts:
        if not verdict.passed:
            say(f"  {mark(False)}  {verdict.claim}: {verdict.why}")
    if held:
        say(f"  {mark(True)}  {len(held)} checks hold (--json lists them)")
    for item in report.unjudged:
        say(f"  -     {item.claim}: {item.why}")
    for alarm in report.alarms:
        say(click.style(f"  ALARM {alarm.kind} · {alarm.subject}", fg="red", bold=True))
        say(f"        {alarm.cause}")
        say(f"        do: {alarm.action}")
