# ruff: noqa: PLC0415, E501 - each engine is imported by the process that serves with it
"""HTTP engines for the door: each answers a POST of 1 kB with a constant, in one process on one core.

    python benchmarks/serve/engines.py [--seconds 2] [--rounds 3]

Measured is what a request costs before anything of ours happens. `modelyard` is our door with a constant
answer behind it. `protocol` is an `asyncio.Protocol` over httptools' parser and nothing else, what such a
door costs at least. `granian` is its worker on our own loop with a callback for each request, and
`granian-task` its own way, a coroutine for each. What the project does not depend on is installed into an
environment of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

BODY = b'{"x":"' + b"1" * 1_014 + b'"}'
ANSWER = b'{"y":"' + b"0" * 250 + b'"}'
HOME = Path(tempfile.gettempdir()) / "modelyard-peers" / "engines"
PACKAGES = ("uvicorn", "httptools", "uvloop", "aiohttp", "hypercorn", "granian")
NAMES = ("modelyard", "protocol", "granian", "granian-task", "uvicorn", "aiohttp", "hypercorn")
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(ANSWER)


def modelyard(port: int) -> None:
    import importlib
    import socket

    import uvloop

    from modelyard.core.clock import SYSTEM_CLOCK
    from modelyard.serve.options import Limits

    door: Any = importlib.import_module("modelyard.serve.http.door")

    class Constant:
        guarded = False

        def admit(self, method: str, path: str, headers: Any) -> None:
            return None

        def check_room(self, path: str) -> None:
            return None

        def refuse(self, error: Any, reply: Any) -> None:
            reply(error.status, [("content-type", "application/json")], b"{}")

        def handle(self, method: str, path: str, headers: Any, body: bytes, reply: Any) -> None:
            reply(200, [("content-type", "application/json")], ANSWER)

    async def run() -> None:
        listening = socket.create_server(("127.0.0.1", port), backlog=1024)
        await door.HttpDoor(Constant(), Limits(), SYSTEM_CLOCK).open(listening)
        await asyncio.Event().wait()

    uvloop.run(run())


def granian(port: int) -> None:
    import importlib
    import socket

    import uvloop
    from granian.http import HTTP1Settings

    engine: Any = importlib.import_module("granian._granian")
    headers = [("content-type", "application/json")]

    def begin(watcher: Any) -> None:
        protocol = watcher.proto
        watcher.scope.headers.get("content-length")
        protocol().add_done_callback(lambda body: protocol.response_bytes(200, headers, ANSWER))

    class Scheduler(engine.CallbackScheduler):  # type: ignore[misc]
        __slots__ = ()

        def __init__(self, loop: Any, *_: Any) -> None:
            super().__init__()
            context = self._ctx
            self._schedule_fn = lambda watcher: loop.call_soon_threadsafe(begin, watcher, context=context)

    async def run() -> None:
        loop = asyncio.get_running_loop()
        listening = socket.create_server(("127.0.0.1", port), backlog=1024)
        holder = engine.SocketHolder(listening.detach(), False, 1024)
        settings = HTTP1Settings()
        worker = engine.RSGIWorker(1, (None, holder), None, 1, 8, 1, 30, 4096, "1", settings, None, False, None,
                                   False, None, None, None, "tls1.2", None, [], False, (None, None))  # fmt: skip
        worker.serve_str(Scheduler(loop, begin, None, None, None), loop, engine.WorkerSignal())
        await asyncio.Event().wait()

    uvloop.run(run())


def granian_task(port: int) -> None:
    from granian import Granian
    from granian.constants import Interfaces, Loops

    headers = [("content-type", "application/json")]

    async def app(scope: Any, protocol: Any) -> None:
        await protocol()
        protocol.response_bytes(200, headers, ANSWER)

    Granian("bench", port=port, interface=Interfaces.RSGI, loop=Loops.uvloop, log_enabled=False,
            websockets=False).serve(target_loader=lambda *_, **__: app, wrap_loader=False)  # fmt: skip


async def asgi(scope: Any, receive: Any, send: Any) -> None:
    """The constant answer for the ASGI servers."""
    if scope["type"] != "http":
        return
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": [
        (b"content-type", b"application/json"), (b"content-length", b"%d" % len(ANSWER))]})  # fmt: skip
    await send({"type": "http.response.body", "body": ANSWER})


def uvicorn(port: int) -> None:
    import uvicorn as engine

    engine.run(asgi, port=port, loop="uvloop", http="httptools", log_level="error", access_log=False,
               lifespan="off")  # fmt: skip


def hypercorn(port: int) -> None:
    import uvloop
    from hypercorn.asyncio import serve
    from hypercorn.config import Config

    config = Config()
    config.bind = [f"127.0.0.1:{port}"]
    uvloop.run(serve(asgi, config))


def aiohttp(port: int) -> None:
    import uvloop
    from aiohttp import web

    async def answer(request: Any) -> Any:
        await request.read()
        return web.Response(body=ANSWER, content_type="application/json")

    async def run() -> None:
        runner = web.ServerRunner(web.Server(answer))
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        await asyncio.Event().wait()

    uvloop.run(run())


def protocol(port: int) -> None:
    """An `asyncio.Protocol` over httptools' parser, by hand: no limits, no time-outs, no half-closed clients."""
    import httptools
    import uvloop

    class Connection(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            self.transport = transport
            self.parser = httptools.HttpRequestParser(self)
            self.parts: list[bytes] = []
            self.headers: dict[bytes, bytes] = {}
            self.path = b""

        def on_message_begin(self) -> None:
            self.parts, self.headers = [], {}

        def on_url(self, url: bytes) -> None:
            self.path = url

        def on_header(self, name: bytes, value: bytes) -> None:
            self.headers[name.lower()] = value

        def data_received(self, data: bytes) -> None:
            self.parser.feed_data(data)

        def on_body(self, body: bytes) -> None:
            self.parts.append(body)

        def on_message_complete(self) -> None:
            self.headers.get(b"content-length"), self.path.decode(), b"".join(self.parts)
            self.transport.write(HEAD + ANSWER)

    async def run() -> None:
        server = await asyncio.get_running_loop().create_server(Connection, "127.0.0.1", port)
        await server.serve_forever()

    uvloop.run(run())


def python() -> Path:
    """The environment with all engines, made when it is not there."""
    there = HOME / "bin" / "python"
    if not (HOME / "ready").exists():
        subprocess.run([sys.executable, "-m", "venv", str(HOME)], check=True)
        from importlib.metadata import version

        packages = [f"granian=={version('granian')}" if name == "granian" else name for name in PACKAGES]
        subprocess.run([str(there), "-m", "pip", "install", "--quiet", *packages], check=True)
        (HOME / "ready").touch()
    return there


def script(folder: Path) -> Path:
    """What wrk sends."""
    (folder / "body").write_bytes(BODY)
    lines = ['wrk.method = "POST"', 'wrk.headers["Content-Type"] = "application/json"',
             f'wrk.body = io.open("{folder / "body"}", "rb"):read("*a")']  # fmt: skip
    (folder / "post.lua").write_text("\n".join(lines))
    return folder / "post.lua"


def compare(seconds: int, rounds: int) -> None:
    """Starts all, asks each in turn within each round, prints medians."""
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from serve.server import Failed, Server, free_port

    folder = Path(tempfile.mkdtemp(prefix="bench-engines-"))
    asked = str(script(folder))
    running: list[Server] = []
    found: dict[tuple[str, int], list[dict[str, float]]] = {}
    try:
        for name in NAMES:
            port = free_port()
            server = Server(
                name,
                [
                    sys.executable if name == "modelyard" else str(python()),
                    __file__,
                    "--serve",
                    name,
                    "--port",
                    str(port),
                ],
                port,
            )
            running.append(server)
            try:
                server.wait(server.listens, 30)
            except Failed as error:
                running.remove(server)
                server.stop()
                print(error)
        for _ in range(rounds):
            for connections in (1, 64):
                for server in running:
                    run = server.load(asked, "/", connections, seconds)
                    found.setdefault((server.name, connections), []).append(run)
        print(f"{'engine':<14} {'c=1 req/s':>10} {'p50 ms':>8} {'CPU us':>8} {'c=64 req/s':>11} {'p99 ms':>8} "
              f"{'CPU us':>8} {'RSS MB':>7}")  # fmt: skip
        for server in running:
            one, many = (
                {key: statistics.median(run[key] for run in found[server.name, connections])
                 for key in found[server.name, connections][0]}
                for connections in (1, 64)
            )  # fmt: skip
            print(f"{server.name:<14} {one['rps']:>10.0f} {one['p50_ms']:>8.3f} {one['cpu_us']:>8.1f} "
                  f"{many['rps']:>11.0f} {many['p99_ms']:>8.2f} {many['cpu_us']:>8.1f} "
                  f"{server.memory:>7.0f}")  # fmt: skip
        print(time.strftime("%Y-%m-%d"), "load average", Path("/proc/loadavg").read_text().strip())
    finally:
        for server in running:
            server.stop()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--serve", choices=NAMES, help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, default=0, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        engines: dict[str, Callable[[int], None]] = {
            "modelyard": modelyard, "granian": granian, "granian-task": granian_task, "protocol": protocol, "uvicorn": uvicorn,
            "aiohttp": aiohttp, "hypercorn": hypercorn,
        }  # fmt: skip
        sys.path = [place for place in sys.path if place != str(Path(__file__).parent)]
        engines[given.serve](given.port)
        return
    compare(given.seconds, given.rounds)


if __name__ == "__main__":
    main()
