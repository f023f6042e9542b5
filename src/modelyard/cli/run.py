"""`modelyard run`: the whole loop, and the service left up."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from modelyard.cli.opened import the_project, the_store
from modelyard.cli.output import give, json_option, mark, say, table
from modelyard.cli.watching import Watcher, observer

if TYPE_CHECKING:
    from modelyard.lifecycle.project import Project
    from modelyard.lifecycle.summary import Summary
    from modelyard.store.store import Store

STOPPED = 15
"""Exit code of a loop that ran as it should and stopped at a gate, a canary or a broken contract."""


def command(name: str, about: str) -> click.Command:
    @click.command(name, help=about)
    @click.option("--no-serve", is_flag=True, help="Stop the service after the summary.")
    @click.option("--port", type=click.IntRange(0, 65535), help="Serve on this port (0: a free one).")
    @json_option
    @click.pass_context
    def run(ctx: click.Context, no_serve: bool, port: int | None, as_json: bool) -> None:
        from modelyard.lifecycle.loop import run_loop
        from modelyard.lifecycle.summary import summarise
        from modelyard.serve.service import running, stop

        project = with_port(the_project(ctx.obj), port)
        was_up = running(project.state) is not None
        with the_store(project) as store:
            service = None
            try:
                watcher = observer(as_json)
                done = run_loop(project, store, watcher)
                report = report_page(project, store, watcher)
                summary = summarise(project, store, done)
                if not no_serve and not summary.stopped:
                    from modelyard.lifecycle.service import ensure_service

                    service = ensure_service(project)
            finally:
                # A first release whose canary failed must not be left answering either.
                if not was_up and (no_serve or service is None):
                    stop(project.state)
        trial = try_line(project, service.url) if service else None
        if as_json:
            extra = {"url": service.url if service else None, "report": str(report), "try": trial}
            give({**summary.to_json(), **extra, "steps": [item.to_json() for item in done.values()]})
        else:
            show_summary(summary)
            where = [("report", str(report))]
            if service:
                where.append(
                    ("service", f"{service.url} (stop it with: modelyard -C {project.root} serve stop)")
                )
            for label, text in where:
                say(f"{label:<10} {text}")
            if trial:
                say(f"\ntry        {trial[0]}\nanswers    {trial[1]}")
        if summary.stopped:
            ctx.exit(STOPPED)

    return run


def with_port(project: Project, port: int | None) -> Project:
    """The project with another port for this command."""
    import dataclasses

    if port is None:
        return project
    return dataclasses.replace(project, endpoint=dataclasses.replace(project.endpoint, port=port))


def report_page(project: Project, store: Store, watcher: Watcher) -> Path:
    """The report's page, drawn anew when a step ran."""
    path = project.store_root / "report.html"
    if watcher.ran or not path.exists():
        from modelyard.lifecycle.reporting import write_report_page

        write_report_page(project, store, path)
    return path


def show_summary(summary: Summary) -> None:
    """Requirement by requirement, then the score by section, then the release."""
    rows = [
        (item.metric, item.asked, item.measured, item.interval, mark(item.passed))
        for item in summary.requirements
    ]
    if rows:
        say()
        table(("requirement", "asked", "measured", "95 % interval", ""), rows)
    say()
    sections = "   ".join(f"{name} {points:g}/7" for name, points in summary.score.sections)
    say(f"ML Test Score {summary.score.total:g}   {sections}")
    say(f"           {summary.score.band}")
    say()
    if summary.release:
        say(f"release    {summary.release}")


def try_line(project: Project, url: str) -> tuple[str, str] | None:
    """A line to paste and what it answers, with a real held-out row."""
    from modelyard.lifecycle.trial import a_trial

    with the_store(project) as store:
        return a_trial(project, store, url)
