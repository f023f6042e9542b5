"""Two things in short turns on one core: a model served and alone, a server with its log and without.

The runtime's own time an item changes by a third within seconds on a machine that others use too. Turns of
a second at most, each measured against the one beside it, see both sides under the same conditions.
"""

from __future__ import annotations

import selectors
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from serve.ask import Ask
from serve.server import SERVER_CORE, Failed, Server

ALONE = """
import sys, time, numpy as np, onnxruntime as o
s = o.SessionOptions(); s.intra_op_num_threads = 1
e = o.InferenceSession(sys.argv[1], s, providers=["CPUExecutionProvider"])
x = {"x": np.random.default_rng(0).random([1, *e.get_inputs()[0].shape[1:]], np.float32)}
for line in sys.stdin:
    began = time.process_time()
    for _ in range(int(line)):
        e.run(None, x)
    print((time.process_time() - began) / int(line), flush=True)
"""
"""onnxruntime and nothing else: told how many items to run, it prints the CPU seconds of one."""
CONNECTIONS = 64


@dataclass(frozen=True)
class Shares:
    """CPU seconds an item, alone and served, of turns beside each other."""

    alone: tuple[float, ...]
    served: tuple[float, ...]

    @property
    def share(self) -> float:
        """Median over the turns of what the model alone takes of what it takes served."""
        return statistics.median(a / s for a, s in zip(self.alone, self.served, strict=True))

    def __str__(self) -> str:
        alone, served = (1e3 * statistics.median(times) for times in (self.alone, self.served))
        return f"{alone:.2f} ms alone, {served:.2f} ms served, {len(self.alone)} turns"


def shares(
    server: Server, asks: Sequence[Ask], file: Path, *, turns: int, items: int = 128
) -> tuple[Shares, ...]:
    """What each request costs in the server beside what the model costs alone, in turn."""
    command = ["taskset", "-c", SERVER_CORE, sys.executable, "-c", ALONE, str(file)]
    served: list[list[float]] = [[] for _ in asks]
    alone: list[float] = []
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None and process.stdout is not None
        for turn in range(turns + 1):
            process.stdin.write(f"{items}\n")
            process.stdin.flush()
            took = float(process.stdout.readline())
            if turn:  # the first warms up.
                alone.append(took)
            for ask, times in zip(asks, served, strict=True):
                before = _cpu(server)
                _ask(server, ask, items)
                if turn:
                    times.append((_cpu(server) - before) / items)
        process.stdin.close()
    return tuple(Shares(tuple(alone), tuple(times)) for times in served)


@dataclass(frozen=True)
class Loss:
    """What a server gives up beside another, of turns beside each other."""

    throughput: tuple[float, ...]
    cpu: tuple[float, ...]
    """Of CPU time a request, that of the work which is done only after the turn included."""

    def __str__(self) -> str:
        low, _, high = statistics.quantiles(self.throughput, n=4)
        return f"{len(self.throughput)} turns, the middle half from {low:.3f} to {high:.3f}"


def loss(server: Server, without: Server, ask: Ask, *, turns: int, seconds: int = 1) -> Loss:
    """The share of throughput and of CPU time that `server` spends on what the other leaves out."""
    rates: list[float] = []
    costs: list[float] = []
    for turn in range(turns + 1):
        rate: dict[str, float] = {}
        cost: dict[str, float] = {}
        # Who goes first has the other's afterwork behind him: in turn.
        for one in (server, without) if turn % 2 else (without, server):
            before = _cpu(one)
            path = one.form.path.format(model=ask.model)
            rate[one.name] = one.load(ask.script, path, CONNECTIONS, seconds)["rps"]
            one.settle()
            cost[one.name] = (_cpu(one) - before) / (rate[one.name] * seconds)
        if turn:  # the first warms up.
            rates.append(1 - rate[server.name] / rate[without.name])
            costs.append(1 - cost[without.name] / cost[server.name])
    return Loss(tuple(rates), tuple(costs))


def _cpu(server: Server) -> float:
    """CPU seconds of the server's process, threads that have ended too: clock_getcpuclockid(3)."""
    return time.clock_gettime((~server.process.pid << 3) | 2)


def _ask(server: Server, ask: Ask, items: int) -> None:
    """So many requests over `CONNECTIONS` connections, each with one at a time."""
    request = ask.request(server.form.path)
    left = items
    with selectors.DefaultSelector() as selector:
        for _ in range(CONNECTIONS):
            connection = socket.create_connection(("127.0.0.1", server.port), timeout=30)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            selector.register(connection, selectors.EVENT_READ, bytearray())
            connection.sendall(request)
            left -= 1
        while selector.get_map():
            for key, _ in selector.select():
                connection, data = key.fileobj, key.data
                assert isinstance(connection, socket.socket)
                data += connection.recv(1 << 16)
                if not _whole(data):
                    continue
                data.clear()
                if left:
                    left -= 1
                    connection.sendall(request)
                else:
                    selector.unregister(connection)
                    connection.close()


def _whole(data: bytearray) -> bool:
    """Whether the answer has come; raises `Failed` when it is another than 200."""
    head, _, body = data.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200"):
        raise Failed(f"not an answer: {bytes(data[:200])!r}")
    length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    return len(body) >= int(length.partition(b":")[2])
