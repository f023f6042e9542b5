"""The serving process: the one place where its parts are put together.

    python -m modelyard.serve.worker OPTIONS.json --fd N

`OPTIONS.json` is what `ServeOptions.to_json` wrote. `--fd` is the listening socket, inherited.
With
several workers the process only watches over them. It prints nothing but the log, to standard error.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import os
import secrets
import signal
import socket
import sys
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import orjson
import uvloop

from modelyard.core.clock import SYSTEM_CLOCK
from modelyard.core.errors import ModelyardError
from modelyard.release.load import LoadedRelease
from modelyard.serve.access.guard import Guard, open_guard
from modelyard.serve.app import App
from modelyard.serve.arrivals import Arrivals
from modelyard.serve.dialects import Dialects
from modelyard.serve.executor import LoopExecutor
from modelyard.serve.follower import Follower
from modelyard.serve.health import Health
from modelyard.serve.loader import Loader
from modelyard.serve.log import PredictionLog
from modelyard.serve.log_lines import write_log_lines
from modelyard.serve.memory import budget
from modelyard.serve.metrics import Metrics
from modelyard.serve.model_facts import Statistics
from modelyard.serve.options import ServeOptions
from modelyard.serve.plane import Plane
from modelyard.serve.pool import Served, make_ready
from modelyard.serve.process import bind
from modelyard.serve.repository import Repository, Wanted
from modelyard.serve.residency import Residency
from modelyard.serve.router import Endpoint, Router
from modelyard.serve.rsgi import RsgiDoor
from modelyard.serve.shelf import Shelf
from modelyard.serve.source import StoreSource
from modelyard.serve.supervisor import supervise
from modelyard.serve.tracing import open_exporter
from modelyard.serve.watch import Watch

if TYPE_CHECKING:
    from modelyard.serve.grpc.door import GrpcDoor

LOAD_SECONDS = 5.0
"""How long connections wait unanswered for endpoints that load; then they hear that they do."""

_LOG = logging.getLogger("modelyard.serve")


async def serve(options: ServeOptions, listening: socket.socket) -> None:
    """Serves on a bound socket until SIGTERM or SIGINT, then finishes what is in work."""
    loop = asyncio.get_running_loop()
    clock = SYSTEM_CLOCK
    metrics = Metrics()
    executor = LoopExecutor(loop, max(2, os.cpu_count() or 1))
    shelf = Shelf(options.state, options.keys or options.root / "keys")
    router = Router(options.endpoints)
    wanted = Wanted(options.state, options.endpoints)
    guard = open_guard(options.state, clock, needed=options.needs_token, workers=options.workers)
    exporter = open_exporter(version("modelyard"))

    loader, follower = _pool(options, router, shelf, executor, metrics, wanted)
    arrivals = Arrivals(router, follower, loop, clock, seconds=options.limits.load_seconds)
    repository = Repository(wanted, router, follower, clock)
    log = PredictionLog(options.state, options.log, metrics, clock)
    plane = Plane(router, metrics, log, clock, name=secrets.token_hex(6))
    log.source = plane.settle
    health = Health(router, follower)
    watch = Watch(clock, lines=options.access_log, exporter=exporter)
    app = App(
        plane,
        health,
        metrics,
        LoopExecutor(loop, 2),  # the disk's and the unpacking's own threads: models need not wait for them
        clock,
        state=options.state,
        limits=options.limits,
        version=version("modelyard"),
        guard=guard,
        repository=repository,
        arrivals=arrivals,
        watch=watch,
        dialects=(Dialects(),),
    )
    _attend(loader, loop, plane, arrivals, app)
    door = RsgiDoor(app, options.limits, clock, tls=options.tls)

    stopping = _stop_event(loop)
    follower.restore()
    follower.start()
    log.start()
    await _loaded(health, stopping)
    _settle_garbage()
    _LOG.info("listening on %s", listening.getsockname())
    door.open(listening, loop)
    grpc = None
    if options.grpc_port is not None:
        grpc = await _open_grpc(options, plane, health, metrics, guard, repository, watch, app, arrivals)
    await stopping.wait()

    _LOG.info("draining")
    health.draining = True
    listening_closed = asyncio.ensure_future(door.close())
    grpc_closed = asyncio.ensure_future(grpc.close(options.drain)) if grpc is not None else None
    deadline = loop.time() + options.drain
    while plane.open and loop.time() < deadline:
        await asyncio.sleep(0.01)
    await asyncio.wait([listening_closed], timeout=max(0.1, min(1.0, deadline - loop.time())))
    if grpc_closed is not None:
        await asyncio.wait([grpc_closed], timeout=max(0.1, deadline - loop.time()))
    await asyncio.to_thread(follower.stop)
    await asyncio.to_thread(log.close)
    if exporter is not None:
        await asyncio.to_thread(exporter.close)
    _LOG.info("ended with %d requests open", plane.open)


async def _open_grpc(
    options: ServeOptions,
    plane: Plane,
    health: Health,
    metrics: Metrics,
    guard: Guard | None,
    repository: Repository,
    watch: Watch,
    app: App,
    arrivals: Arrivals,
) -> GrpcDoor:
    """The gRPC door; its libraries are loaded only here."""
    from modelyard.serve.grpc.door import open_door
    from modelyard.serve.grpc.inference import Inference
    from modelyard.serve.grpc.service import InferenceService

    service = InferenceService(
        plane.router,
        health,
        Statistics(plane.router, metrics),
        limits=options.limits,
        version=version("modelyard"),
        repository=repository,
    )
    inference = Inference(
        plane, metrics, SYSTEM_CLOCK, limits=options.limits, seen=app.seen, arrivals=arrivals
    )
    app.forgetting.append(inference.forget)
    return await open_door(options, service, inference, metrics, SYSTEM_CLOCK, guard=guard, watch=watch)


def _pool(
    options: ServeOptions,
    router: Router,
    shelf: Shelf,
    executor: LoopExecutor,
    metrics: Metrics,
    wanted: Wanted,
) -> tuple[Loader, Follower]:
    """What keeps the right models in memory."""
    clock = SYSTEM_CLOCK

    def ready(endpoint: str, release: LoadedRelease) -> Served:
        limits = options.limits_of(endpoint)
        return make_ready(endpoint, release, executor, metrics, limits=limits, threads=options.threads)

    source = StoreSource(options.root, shelf.keys, records=options.records, objects=options.objects)
    pinned = frozenset(options.pinned)
    residency = Residency(budget(options.memory_bytes, options.workers), pinned)
    loader = Loader(
        router, shelf, source, make_ready=ready, metrics=metrics, clock=clock, residency=residency
    )
    follower = Follower(
        options.endpoints,
        loader,
        shelf,
        source,
        metrics=metrics,
        clock=clock,
        poll=options.poll,
        eager=options.eager,
        pinned=pinned,
        wanted=wanted.names,
    )
    return loader, follower


def _attend(
    loader: Loader, loop: asyncio.AbstractEventLoop, plane: Plane, arrivals: Arrivals, app: App
) -> None:
    """Lets the loader know what is in use, and those on the loop what it did."""

    def gone(endpoint: Endpoint) -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(app.forget, endpoint)

    loader.in_use = lambda name: plane.busy(name) or arrivals.waits(name)
    loader.arrived = arrivals.arrived
    loader.gone = gone


def _stop_event(loop: asyncio.AbstractEventLoop) -> asyncio.Event:
    """An event that SIGTERM and SIGINT set."""
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    return stopping


def _settle_garbage() -> None:
    """Takes what is loaded out of the collector's sight and makes it look less often.

    A request leaves a few small containers that reference counting frees; walking all libraries' objects
    for them costs more than the requests.
    """
    # A thread that computes gives the interpreter back to the loop within a third of a millisecond.
    sys.setswitchinterval(0.0003)
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


def _check_access(options: ServeOptions) -> None:
    """Raises `ServeError` before anything starts when nobody could be let in, or the certificate is wrong."""
    open_guard(options.state, SYSTEM_CLOCK, needed=options.needs_token)
    if options.tls is not None:
        options.tls.check()


async def _loaded(health: Health, stopping: asyncio.Event) -> None:
    """Waits, not for long, until every endpoint is served or refused; clients wait with it."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + LOAD_SECONDS
    while not (health.settled or stopping.is_set() or loop.time() > deadline):
        await asyncio.sleep(0.005)


def main(arguments: list[str]) -> int:
    """Runs one process; the exit code says how it ended."""
    parser = argparse.ArgumentParser(prog="modelyard.serve.worker")
    parser.add_argument("options", type=Path)
    parser.add_argument("--fd", type=int, required=True)
    parser.add_argument("--alone", action="store_true", help="be one worker of several")
    given = parser.parse_args(arguments)
    write_log_lines()
    try:
        options = ServeOptions.from_json(orjson.loads(given.options.read_bytes()))
        if not given.alone:
            _check_access(options)
            Wanted(options.state, options.endpoints).reset()
        with socket.socket(fileno=given.fd) as listening:
            if options.grpc_port is not None and not given.alone:
                # Workers share the port among themselves, and would with another service of this user.
                bind(
                    "127.0.0.1" if options.host == "localhost" else options.host, options.grpc_port, 1
                ).close()
            if options.workers > 1 and not given.alone:
                supervise(options, given.options, listening)
            else:
                uvloop.run(serve(options, listening))
    except ModelyardError as error:
        _LOG.error("%s", error)
        return error.exit_code
    return 0


if __name__ == "__main__":
    # Threads of the runtime may still be inside a model; they end with the process.
    os._exit(main(sys.argv[1:]))
