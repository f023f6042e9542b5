"""`modelyard serve [start|stop|status]`: the prediction service of the project's endpoint."""

from __future__ import annotations

import click

from modelyard.cli.opened import the_project
from modelyard.cli.output import give, json_option, say
from modelyard.cli.run import with_port


def command(name: str, about: str) -> click.Command:
    @click.command(name, help=about)
    @click.argument("action", type=click.Choice(["start", "stop", "status"]), default="start")
    @click.option("--port", type=click.IntRange(0, 65535), help="Serve on this port (0: a free one).")
    @json_option
    @click.pass_context
    def serve(ctx: click.Context, action: str, port: int | None, as_json: bool) -> None:
        from modelyard.lifecycle.service import ensure_service
        from modelyard.serve.service import running, stop

        project = with_port(the_project(ctx.obj), port)
        if action == "stop":
            stopped = stop(project.state)
            give({"stopped": stopped}) if as_json else say("stopped" if stopped else "no service was running")
            return
        service = ensure_service(project) if action == "start" else running(project.state)
        if as_json:
            facts = {"pid": service.pid, "url": service.url, "log": str(service.log)} if service else {}
            give({"running": service is not None, **facts})
        elif service is None:
            say("no service is running; start it with: modelyard serve")
        else:
            say(
                f"{project.endpoint_name} answers at {service.url} (process {service.pid}, log {service.log})"
            )
        if service is None:
            ctx.exit(1)

    return serve
