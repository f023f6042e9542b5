"""Many models in one service, over HTTP, and models that come and go; prints JSON.

    python benchmarks/serve/many.py [MODELS] [CYCLES] [REQUESTS]     (1000 500 10000: about three minutes)

`MODELS` different small models stand behind one service, which loads one at its start. Each of the others
is asked once, cold. Then one of them is asked `REQUESTS` times, in turns with the same model in a service
that has no other. Then `CYCLES` times a model is loaded, asked and unloaded through the repository API of
that second service.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
import serve_yard as yard

from modelyard.serve.options import LogOptions, ServeOptions
from modelyard.serve.service import start, stop

BODY = json.dumps(
    {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 64], "data": [0.5] * 64}]}
).encode()
TURN = 200
"""Requests to one service before it is the other's turn: noise of the machine meets both."""
BETWEEN = 10
"""Cycles between two looks at the memory, over as many models."""
WARM_UP = 200
"""Cycles that fill caches and heaps before the memory is looked at."""


class Service:
    """A service and one connection to it."""

    def __init__(self, state: Path, place: yard.Yard, names: tuple[str, ...], **options: Any) -> None:
        began = time.perf_counter()
        self.state = state
        running = start(
            ServeOptions(state=state, root=place.folder / "store", endpoints=names, port=0, keys=place.keys,
                         **options)
        )  # fmt: skip
        self.start_seconds = time.perf_counter() - began
        self.pid = running.pid
        self._connection = http.client.HTTPConnection(running.url.removeprefix("http://"), timeout=60)

    def post(self, path: str, body: bytes = b"") -> float:
        """Seconds to the answer, which must be right in its status."""
        began = time.perf_counter()
        self._connection.request("POST", path, body)
        response = self._connection.getresponse()
        content = response.read()
        seconds = time.perf_counter() - began
        if response.status != 200:
            raise SystemExit(f"{path}: {response.status} {content.decode()[:300]}")
        return seconds

    def ask(self, name: str) -> float:
        return self.post(f"/v2/models/{name}/infer", BODY)

    @property
    def rss_mb(self) -> float:
        text = Path(f"/proc/{self.pid}/status").read_text()
        return int(text.split("VmRSS:")[1].split()[0]) / 1000

    def settle(self) -> None:
        """Waits until the log is written and freed memory was given back."""
        last = 0.0
        for _ in range(40):
            time.sleep(0.5)
            now = cpu_seconds(self.pid)
            if now - last < 0.05:
                return
            last = now


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def ms(values: list[float], share: float) -> float:
    return round(1e3 * float(np.quantile(values, share)), 3)


def warm(many: Service, one: Service, requests: int) -> dict[str, Any]:
    """The same model in both services, in turns."""
    among: list[float] = []
    alone: list[float] = []
    for service in (many, one):
        for _ in range(TURN):
            service.ask("m0")
    while len(among) < requests:
        for service, times in ((many, among), (one, alone)):
            times += [service.ask("m0") for _ in range(TURN)]
    found = {
        "warm_among_ms": [ms(among, 0.5), ms(among, 0.99)],
        "warm_alone_ms": [ms(alone, 0.5), ms(alone, 0.99)],
    }
    ratios = [np.quantile(among, share) / np.quantile(alone, share) for share in (0.5, 0.99)]
    return found | dict(
        zip(("warm_p50_ratio", "warm_p99_ratio"), [round(float(r), 3) for r in ratios], strict=True)
    )


def cycled(service: Service, names: tuple[str, ...], cycles: int) -> dict[str, Any]:
    """The slope of the resident memory over cycles of load, infer, unload, with its standard error."""
    memory = []
    began = time.perf_counter()
    for cycle in range(WARM_UP + cycles):
        name = names[1 + cycle % BETWEEN]
        service.post(f"/v2/repository/models/{name}/load")
        service.ask(name)
        service.post(f"/v2/repository/models/{name}/unload")
        if cycle % BETWEEN == BETWEEN - 1:
            memory.append(service.rss_mb)
    seconds = time.perf_counter() - began
    later = np.array(memory[WARM_UP // BETWEEN :])
    at = np.arange(len(later)) * BETWEEN
    found: dict[str, Any] = {"cycles": cycles, "cycle_ms": round(1e3 * seconds / (WARM_UP + cycles), 1)}
    if len(later) < 4:
        return found
    slope, base = np.polyfit(at, later, 1)
    noise = float(np.sqrt(((later - slope * at - base) ** 2).sum() / (len(later) - 2)))
    error = noise / float(np.sqrt(((at - at.mean()) ** 2).sum()))
    return found | {
        "slope_kb_a_cycle": round(1e3 * float(slope), 3),
        "slope_error_kb": round(1e3 * error, 3),
        "noise_mb": round(noise, 3),
        "rss_from_to_mb": [round(float(later[0]), 1), round(float(later[-1]), 1)],
    }


def main() -> None:
    reader = argparse.ArgumentParser(description="Many models in one service, over HTTP.")
    reader.add_argument("models", type=int, nargs="?", default=1_000)
    reader.add_argument("cycles", type=int, nargs="?", default=500)
    reader.add_argument("requests", type=int, nargs="?", default=10_000)
    given = reader.parse_args()
    memory = Path("/dev/shm")  # noqa: S108 - releases are made without waiting for a disk
    folder = Path(tempfile.mkdtemp(dir=memory if memory.is_dir() else None))
    began = time.perf_counter()
    try:
        place = yard.Yard.make(folder / "yard")
        names = place.many(max(given.models, BETWEEN + 1))
        made = time.perf_counter() - began
        many = Service(folder / "many", place, names, eager=1, memory_bytes=0)
        result: dict[str, Any] = {"models": len(names), "made_s": round(made, 1),
                                  "start_s": round(many.start_seconds, 2)}  # fmt: skip
        cold = [many.ask(name) for name in names[1:]]
        many.settle()
        result |= {"cold_ms_p50": ms(cold, 0.5), "cold_ms_p99": ms(cold, 0.99), "cold_ms_max": ms(cold, 1.0),
                   "rss_mb": round(many.rss_mb, 1)}  # fmt: skip
        # A segment of the log grows for a minute; short ones reach their full size within the run.
        one = Service(folder / "one", place, names[:1], log=LogOptions(rows=BETWEEN))
        one.settle()
        result |= warm(many, one, given.requests)
        stop(many.state)
        result |= cycled(one, names, given.cycles)
    finally:
        for state in ("many", "one"):
            stop(folder / state)
        shutil.rmtree(folder, ignore_errors=True)
    print(json.dumps(result | {"seconds": round(time.perf_counter() - began, 1)}))


main()
