"""The project's own prediction service: its options, and waiting until it serves what the ledger says."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from modelyard.core.clock import SYSTEM_CLOCK, iso
from modelyard.core.errors import ServeError
from modelyard.core.poll import until
from modelyard.lifecycle.client import Client
from modelyard.lifecycle.project import Project, expand
from modelyard.serve.access.token import new_token
from modelyard.serve.access.token_file import add_token, remove_token, token_path
from modelyard.serve.options import OwnLimits, ServeOptions
from modelyard.serve.service import Running, start


def serve_options(project: Project) -> ServeOptions:
    """How the project's service runs."""
    endpoint = project.endpoint
    return ServeOptions(
        state=project.state.absolute(),
        root=project.store_root.absolute(),
        endpoints=(project.endpoint_name,),
        host=endpoint.host,
        port=endpoint.port,
        workers=endpoint.workers,
        records=expand(project.store.records),
        objects=expand(project.store.objects),
        keys=project.keys.absolute(),
        exposed=endpoint.exposed,
        tls_certificate=_path(project, endpoint.tls_certificate),
        tls_key=_path(project, endpoint.tls_key),
        grpc_port=endpoint.grpc_port,
        pinned=(project.endpoint_name,),
        memory_bytes=None if endpoint.memory is None else int(endpoint.memory),
        own={
            project.endpoint_name: OwnLimits(
                queue=endpoint.queue, batch=endpoint.batch, wait_seconds=endpoint.wait
            )
        },
    )


def ensure_service(project: Project) -> Running:
    """The running service, started when it is not up."""
    return start(serve_options(project))


@contextmanager
def service_client(project: Project) -> Iterator[Client]:
    """A client of the running service, started when it is not up.

    Where the service asks for tokens, the client has one of its own for as long as it is used.
    """
    options = serve_options(project)
    running = start(options)
    if not options.needs_token:
        yield Client(running.url, certificate=options.tls_certificate)
        return
    token, text = new_token(
        f"loop-{os.getpid()}", ("predict", "feedback", "operate"), created=iso(SYSTEM_CLOCK.now())
    )
    path = token_path(options.state)
    add_token(path, token)
    try:
        # The service looks at the file of tokens twice a second.
        client = Client(running.url, token=text, certificate=options.tls_certificate)
        until(lambda: client.get("/metrics")[0] != 401, 5.0, every=0.05)
        yield client
    finally:
        remove_token(path, token.name)


def wait_for_generation(client: Client, endpoint: str, generation: int, *, wait: float = 15.0) -> float:
    """Waits until the service has taken over a routing generation; returns the seconds it took.

    Raises `ServeError` when it has not after `wait` seconds: the service's log says why.
    """
    began = time.monotonic()
    needle = f'modelyard_endpoint_generation{{endpoint="{endpoint}"}}'

    def taken_over() -> bool:
        lines = client.get("/metrics")[1].splitlines()
        return any(float(line.rsplit(" ", 1)[1]) >= generation for line in lines if line.startswith(needle))

    if not until(taken_over, wait, every=0.05):
        raise ServeError(
            f"the service did not take over the new policy of {endpoint!r}",
            rule=f"within {wait:g} s",
            fix="read the service's log: modelyard serve status",
        )
    return time.monotonic() - began


def _path(project: Project, file: str | None) -> Path | None:
    return None if file is None else (project.root / file).absolute()
