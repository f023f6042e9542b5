"""Two workers against one over HTTP, a core for each; prints JSON.

    python workers.py [--seconds 4] [--rounds 3] [--connections 64]

The model takes several ms an item, so that `wrk`, which has to run on the same two cores, costs next to
nothing: `wrk_cpu` says what share of the two cores it took. Rounds of one and of two workers take turns.
`ratio` is the median over the rounds of requests a second; what else runs on the machine spoils it, and
`undisturbed` is false when a worker did not get its core.
`ratio_by_cpu` is hardly spoiled: what a request costs one worker over what it costs two at once, times how
many of the two have work (`parts` of it each: connections are dealt out by chance).
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
import serve_yard as yard

from modelyard.release.policy import Single
from modelyard.serve.options import Limits, LogOptions, ServeOptions
from modelyard.serve.service import Running, start, stop

CHANNELS = 96
"""Of the network: about 5.6 ms an item on the machine whose figures the bar starts from."""
WRK = """
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/octet-stream"
wrk.headers["Inference-Header-Content-Length"] = "{head}"
local file = io.open("{body}", "rb")
wrk.body = file:read("*a")
"""


def script_of(folder: Path) -> Path:
    """One item as binary tensors, for wrk."""
    raw = yard.rows_of("cnn", 1, seed=3)["x"].tobytes()
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, 3, 64, 64],
              "parameters": {"binary_data_size": len(raw)}}  # fmt: skip
    head = json.dumps({"inputs": [tensor]}).encode()
    body = folder / "body"
    body.write_bytes(head + raw)
    script = folder / "wrk.lua"
    script.write_text(WRK.format(head=len(head), body=body))
    return script


class Service:
    """A service whose workers are bound to a core each."""

    def __init__(self, made: Any, state: Path, workers: int) -> None:
        # What the log writes is the same for both, and a disk that both write to is none of the ratio.
        options = ServeOptions(state=state, root=made.folder / "store", keys=made.keys, endpoints=("cnn",),
                               port=0, workers=workers, log=LogOptions(sample=0.05),
                               limits=Limits(wait_seconds=60))  # fmt: skip
        self.state = state
        self.running: Running = start(options, wait=120)
        pid = self.running.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        self.pids = [pid] if workers == 1 else sorted(map(int, children))
        for pid, core in zip(self.pids, cores(), strict=False):
            for task in Path(f"/proc/{pid}/task").iterdir():
                os.sched_setaffinity(int(task.name), {core})

    def cpu(self) -> list[float]:
        """Seconds of CPU time that each worker has used."""
        found = []
        for pid in self.pids:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            found.append((int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"))
        return found

    def load(self, script: Path, connections: int, seconds: float) -> dict[str, Any]:
        """One run of wrk on the cores of the workers."""
        before, wrk_before = self.cpu(), _children_cpu()
        began = time.perf_counter()
        url = f"{self.running.url}/v2/models/cnn/infer"
        command = ["taskset", "-c", ",".join(map(str, cores())), "wrk", "-t1", f"-c{connections}",
                   f"-d{seconds:g}s", "--timeout", "30s", "-s", str(script), url]  # fmt: skip
        out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        if "Non-2xx" in out or "Socket errors" in out:
            raise RuntimeError(f"it answers with errors:\n{out}")
        took = time.perf_counter() - began
        used = [after - start for after, start in zip(self.cpu(), before, strict=True)]
        requests = int(re.search(r"(\d+) requests in", out)[1])  # type: ignore[index]
        return {
            "rps": float(re.search(r"Requests/sec:\s+([\d.]+)", out)[1]),  # type: ignore[index]
            "cpu_ms": 1e3 * sum(used) / requests,
            "parts": [round(part / sum(used), 3) for part in used],
            "busy": [round(part / took, 3) for part in used],
            "wrk_cpu": (_children_cpu() - wrk_before) / took / 2,
        }


def cores() -> list[int]:
    return sorted(os.sched_getaffinity(0))[:2]


def _children_cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def compare(folder: Path, given: argparse.Namespace) -> dict[str, Any]:
    made = yard.Yard.make(folder)
    made.set("cnn", Single(made.release("cnn", yard.cnn(channels=CHANNELS)).digest))
    script = script_of(folder)
    services: list[Service] = []
    rounds: list[dict[int, dict[str, Any]]] = []
    try:
        services += [Service(made, folder / f"state-{workers}", workers) for workers in (1, 2)]
        for service in services:
            service.load(script, given.connections, 1)
        for number in range(given.rounds):
            order = services if number % 2 == 0 else services[::-1]
            measured = {len(one.pids): one.load(script, given.connections, given.seconds) for one in order}
            rounds.append(measured)
    finally:
        for service in services:
            stop(service.state)
    return {
        "ratio": statistics.median(two[2]["rps"] / two[1]["rps"] for two in rounds),
        "ratio_by_cpu": statistics.median(_by_cpu(two[1], two[2]) for two in rounds),
        "wrk_cpu": max(found["wrk_cpu"] for two in rounds for found in two.values()),
        "connections": given.connections,
        "undisturbed": all(max(found["busy"]) > 0.9 for two in rounds for found in two.values()),
        "one": [two[1] for two in rounds],
        "two": [two[2] for two in rounds],
    }


def _by_cpu(one: dict[str, Any], two: dict[str, Any]) -> float:
    """What two undisturbed cores would give: they end together unless one runs out of requests."""
    even = min(two["busy"]) / max(two["busy"])
    return float((1 + even) * one["cpu_ms"] / two["cpu_ms"])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--connections", type=int, default=64)
    given = parser.parse_args()
    if len(cores()) < 2:
        raise SystemExit("two workers need two cores")
    with tempfile.TemporaryDirectory(prefix="bench-workers-") as folder:
        print(json.dumps(compare(Path(folder), given), indent=2))


if __name__ == "__main__":
    main()
