"""The project's own prediction service: its options, and waiting until it serves what the ledger says."""

from __future__ import annotations

import time
import urllib.request

from modelyard.core.errors import ServeError
from modelyard.lifecycle.project import Project, expand
from modelyard.serve.options import ServeOptions
from modelyard.serve.service import Running, start


def serve_options(project: Project) -> ServeOptions:
    """How the project's service runs."""
    return ServeOptions(
        state=project.state.absolute(),
        root=project.store_root.absolute(),
        endpoints=(project.endpoint_name,),
        host=project.endpoint.host,
        port=project.endpoint.port,
        workers=project.endpoint.workers,
        records=expand(project.store.records),
        objects=expand(project.store.objects),
        keys=project.keys.absolute(),
    )


def ensure_service(project: Project) -> Running:
    """The running service, started when it is not up."""
    return start(serve_options(project))


def wait_for_generation(url: str, endpoint: str, generation: int, *, wait: float = 15.0) -> float:
    """Waits until the service has taken over a routing generation; returns the seconds it took.

    Raises `ServeError` when it has not after `wait` seconds: the service's log says why.
    """
    began = time.monotonic()
    needle = f'modelyard_endpoint_generation{{endpoint="{endpoint}"}}'
    while True:
        with urllib.request.urlopen(f"{url}/metrics", timeout=5) as response:  # noqa: S310 - our own service
            text = response.read().decode()
        for line in text.splitlines():
            if line.startswith(needle) and float(line.rsplit(" ", 1)[1]) >= generation:
                return time.monotonic() - began
        if time.monotonic() - began > wait:
            raise ServeError(
                f"the service did not take over the new policy of {endpoint!r}",
                rule=f"within {wait:g} s",
                fix="read the service's log: modelyard serve status",
            )
        time.sleep(0.05)
