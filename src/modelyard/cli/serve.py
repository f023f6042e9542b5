"""`modelyard serve [start|stop|status]`: the prediction service of the project's endpoint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from modelyard.cli.opened import the_project, the_store
from modelyard.cli.output import give, json_option, say
from modelyard.cli.run import STOPPED, with_port
from modelyard.cli.watching import observer

if TYPE_CHECKING:
    from modelyard.lifecycle.project import Project
    from modelyard.lifecycle.standing import Standing
    from modelyard.lifecycle.step import StepRecord
    from modelyard.serve.service import Running

_MORE = (
    "A release that was never before traffic is canaried first, by the loop up to that step, where the "
    "project can run."
)


def command(name: str, about: str) -> click.Command:
    @click.command(name, help=f"{about} {_MORE}")
    @click.argument("action", type=click.Choice(["start", "stop", "status"]), default="start")
    @click.option("--port", type=click.IntRange(0, 65535), help="Serve on this port (0: a free one).")
    @json_option
    @click.pass_context
    def serve(ctx: click.Context, action: str, port: int | None, as_json: bool) -> None:
        from modelyard.serve.service import running, stop

        project = with_port(the_project(ctx.obj), port)
        if action == "stop":
            stopped = stop(project.state)
            give({"stopped": stopped}) if as_json else say("stopped" if stopped else "no service was running")
            return
        done: Mapping[str, StepRecord] = {}
        if action == "start":
            service, done = _start(project, as_json)
        else:
            service = running(project.state)
        if as_json:
            facts: dict[str, Any] = (
                {"pid": service.pid, "url": service.url, "log": str(service.log)} if service else {}
            )
            if action == "start":
                facts |= {"steps": [item.to_json() for item in done.values()]}
            give({"running": service is not None, **facts})
        elif service is not None:
            say(
                f"{project.endpoint_name} answers at {service.url} (process {service.pid}, log {service.log})"
            )
        elif not done:
            say("no service is running; start it with: modelyard serve")
        if any(record.stops for record in done.values()):
            ctx.exit(STOPPED)
        if service is None:
            ctx.exit(1)

    return serve


def _start(project: Project, as_json: bool) -> tuple[Running | None, Mapping[str, StepRecord]]:
    """The service, and the steps that had to be taken for it; no service when a first release failed."""
    from modelyard.lifecycle.loop import run_loop
    from modelyard.lifecycle.service import ensure_service
    from modelyard.serve.service import running, stop

    found = _standing(project)
    if found is None or not found.waits:
        return ensure_service(project), {}
    # The champion answers whatever becomes of the newer release.
    service = ensure_service(project) if found.answers else None
    was_up = running(project.state) is not None
    try:
        with the_store(project) as store:
            done = run_loop(project, store, observer(as_json), until="serve", command="modelyard serve")
        if not any(record.stops for record in done.values()):
            service = ensure_service(project)
    finally:
        # A first release whose canary failed must not be left answering.
        if service is None and not was_up:
            stop(project.state)
    return service, done


def _standing(project: Project) -> Standing | None:
    """Where the newest release stands; nothing on a machine that only serves, or cut off from its store."""
    from modelyard.core.errors import StoreError
    from modelyard.lifecycle.standing import can_run, standing

    if not can_run(project):
        return None
    try:
        with the_store(project) as store:
            return standing(project, store)
    except StoreError:
        # The service starts from its own copy and says what the store lacks.
        return None
