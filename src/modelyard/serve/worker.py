"""The serving process: the one place where its parts are put together.

    python -m modelyard.serve.worker OPTIONS.json --fd N [--slot I --link M]

`OPTIONS.json` is what `ServeOptions.to_json` wrote. `--fd` is the listening socket, inherited. One worker
of several is told its slot and the link to the supervisor that started it. It prints nothing but the log,
to standard error.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import logging
import os
import secrets
import signal
import socket
import sys
from dataclasses import dataclass
from importlib.abc import MetaPathFinder
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
from modelyard.serve.http.door import HttpDoor
from modelyard.serve.loader import Loader
from modelyard.serve.log import PredictionLog
from modelyard.serve.log_lines import write_log_lines
from modelyard.serve.memory import budget, keep_between_runs
from modelyard.serve.metrics import Metrics
from modelyard.serve.model_facts import Statistics
from modelyard.serve.options import ServeOptions
from modelyard.serve.plane import Plane
from modelyard.serve.pool import Served, make_ready
from modelyard.serve.prepare import prepare
from modelyard.serve.process import ANSWERS, ENDS
from modelyard.serve.repository import Repository, Wanted
from modelyard.serve.residency import Residency
from modelyard.serve.router import Endpoint, Router
from modelyard.serve.shelf import Shelf
from modelyard.serve.source import StoreSource
from modelyard.serve.tracing import open_exporter
from modelyard.serve.watch import Watch
from modelyard.serve.worker_board import WorkerBoard

if TYPE_CHECKING:
    from modelyard.serve.grpc.door import GrpcDoor

LOAD_SECONDS = 5.0
"""How long connections wait unanswered for endpoints that load; then they hear that they do."""

_LOG = logging.getLogger("modelyard.serve")


@dataclass(frozen=True, slots=True)
class Member:
    """One worker of several: its slot, and the link to its supervisor."""

    slot: int
    link: socket.socket


async def serve(options: ServeOptions, listening: socket.socket, member: Member | None = None) -> None:
    """Serves on a bound socket until SIGTERM, SIGINT or its supervisor's end; finishes what is in work."""
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
    board = None
    if member is not None:
        board = WorkerBoard(options.state, member.slot, options.workers, metrics, health)
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
        board=board,
    )
    _attend(loader, loop, plane, arrivals, app)
    door = HttpDoor(app, options.limits, clock, tls=options.tls)

    stopping = _stop_event(loop, member)
    follower.restore()
    follower.start()
    log.start()
    await _loaded(health, stopping)
    # Before HTTP: whoever hears there that the service is ready may ask here.
    grpc = None
    if options.grpc_port is not None:
        grpc = await _open_grpc(options, plane, health, metrics, guard, repository, watch, app, arrivals)
    _settle_garbage()
    _LOG.info("listening on %s", listening.getsockname())
    await door.open(listening)
    if board is not None:
        await asyncio.to_thread(board.open)
    _say(member, ANSWERS)
    await stopping.wait()

    _say(member, ENDS)
    _LOG.info("draining")
    health.draining = True
    await _drain(options.drain, plane, door, grpc)
    await asyncio.to_thread(follower.stop)
    await asyncio.to_thread(log.close)
    if board is not None:
        await asyncio.to_thread(board.close)
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


async def _drain(seconds: float, plane: Plane, door: HttpDoor, grpc: GrpcDoor | None) -> None:
    """Takes no more connections, and waits so long for the answers in work."""
    loop = asyncio.get_running_loop()
    http_closed = asyncio.ensure_future(door.close())
    grpc_closed = asyncio.ensure_future(grpc.close(seconds)) if grpc is not None else None
    deadline = loop.time() + seconds
    while plane.open and loop.time() < deadline:
        await asyncio.sleep(0.01)
    await asyncio.wait([http_closed], timeout=max(0.1, min(1.0, deadline - loop.time())))
    if grpc_closed is not None:
        await asyncio.wait([grpc_closed], timeout=max(0.1, deadline - loop.time()))


def _stop_event(loop: asyncio.AbstractEventLoop, member: Member | None) -> asyncio.Event:
    """An event that SIGTERM, SIGINT and the end of the supervisor set."""
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    if member is not None:

        def ended() -> None:
            loop.remove_reader(member.link)
            stopping.set()

        # Nothing is ever sent this way: what can be read is the end.
        loop.add_reader(member.link, ended)
    return stopping


def _say(member: Member | None, what: bytes) -> None:
    if member is not None:
        with contextlib.suppress(OSError):
            member.link.send(what)


def _settle_garbage() -> None:
    """Takes what is loaded out of the collector's sight and makes it look less often.

    A request leaves a few small containers that reference counting frees; walking all libraries' objects
    for them costs more than the requests.
    """
    # A thread that computes gives the interpreter back to the loop within a third of a millisecond.
    sys.setswitchinterval(0.0001)
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


class _WithoutPandas(MetaPathFinder):
    """Keeps pyarrow from loading pandas, wherever that is installed, with the first list that it is given.

    That is half a second of the interpreter and 40 MB, and nothing here ever holds a frame.
    """

    def find_spec(self, fullname: str, path: object, target: object = None) -> None:
        if fullname == "pandas":
            raise ModuleNotFoundError("a process that serves does without pandas", name=fullname)


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
    parser.add_argument("--slot", type=int, help="be one worker of several")
    parser.add_argument("--link", type=int, help="the socket to the supervisor")
    given = parser.parse_args(arguments)
    write_log_lines()
    sys.meta_path.insert(0, _WithoutPandas())
    keep_between_runs()
    try:
        options = ServeOptions.from_json(orjson.loads(given.options.read_bytes()))
        if given.slot is None:
            prepare(options)
            member = None
        else:
            member = Member(given.slot, socket.socket(fileno=given.link))
        with socket.socket(fileno=given.fd) as listening:
            uvloop.run(serve(options, listening, member))
    except ModelyardError as error:
        _LOG.error("%s", error)
        return error.exit_code
    return 0


if __name__ == "__main__":
    # Threads of the runtime may still be inside a model; they end with the process.
    os._exit(main(sys.argv[1:]))
