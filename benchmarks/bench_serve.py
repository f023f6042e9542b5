"""The serving plane against the HTTP ceiling and against a bare loop, interleaved in one run.

    .venv/bin/python benchmarks/bench_serve.py [--seconds 3] [--rounds 3] [--json]

Needs `wrk` and two cores: the server with all its threads on core 0, `wrk` on core 1. Beside requests a
second it counts the server's own CPU time per request, which other work on the machine disturbs less.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import serve_yard as yard

HERE = Path(__file__).parent
WRK = """
wrk.method = "POST"
wrk.headers["Content-Type"] = "{kind}"
{extra}
local file = io.open("{body}", "rb")
wrk.body = file:read("*a")
"""


def bodies(folder: Path) -> dict[str, dict[str, str]]:
    """The requests: JSON and binary, one item each."""
    made = {}
    for kind in ("mlp", "cnn"):
        values = yard.rows_of(kind, 1, seed=3)["x"]
        tensor: dict[str, Any] = {"name": "x", "datatype": "FP32", "shape": list(values.shape)}
        text = json.dumps(
            {"inputs": [tensor | {"data": [round(float(v), 7) for v in values.ravel()]}]}
        ).encode()
        raw = values.tobytes()
        parameters = {"parameters": {"binary_data_size": len(raw)}}
        head = json.dumps(
            {"inputs": [tensor | parameters], "parameters": {"binary_data_output": True}}
        ).encode()
        for name, body, extra in (
            (f"{kind}-json", text, ""),
            (f"{kind}-binary", head + raw, f'wrk.headers["Inference-Header-Content-Length"] = "{len(head)}"'),
        ):
            file = folder / f"{name}.body"
            file.write_bytes(body)
            content = "application/json" if not extra else "application/octet-stream"
            script = folder / f"{name}.lua"
            script.write_text(WRK.format(kind=content, extra=extra, body=file))
            made[name] = {"script": str(script), "endpoint": kind}
    return made


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """A server process pinned to core 0."""

    def __init__(self, name: str, command: list[str], port: int) -> None:
        self.name = name
        self.port = port
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        began = time.perf_counter()
        self.process = subprocess.Popen(["taskset", "-c", "0", *command], env=environment,
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                if time.perf_counter() - began > 60:
                    raise RuntimeError(f"{name} does not listen") from None
                time.sleep(0.01)

    @property
    def cpu(self) -> float:
        """Seconds of CPU time that the server's processes have used."""
        ticks = 0
        for pid in self._pids():
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    @property
    def memory(self) -> float:
        """Resident megabytes of all the server's processes."""
        texts = [Path(f"/proc/{pid}/status").read_text() for pid in self._pids()]
        return sum(int(re.search(r"VmRSS:\s+(\d+)", text)[1]) for text in texts) / 1000  # type: ignore[index]

    def _pids(self) -> list[int]:
        pid = self.process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return [pid, *map(int, children)]

    def load(self, script: str, path: str, connections: int, seconds: int) -> dict[str, float]:
        """One run of wrk: requests a second, p50 and p99 in ms, server CPU microseconds a request."""
        before = self.cpu
        url = f"http://127.0.0.1:{self.port}{path}"
        command = ["taskset", "-c", "1", "wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency"]
        ended = subprocess.run([*command, "-s", script, url], capture_output=True, text=True, check=True)
        out = ended.stdout
        if "Non-2xx" in out:
            raise RuntimeError(f"{self.name} {path} answers with errors:\n{out}")
        requests = int(re.search(r"(\d+) requests in", out)[1])  # type: ignore[index]
        return {
            "rps": float(re.search(r"Requests/sec:\s+([\d.]+)", out)[1]),  # type: ignore[index]
            "p50_ms": _ms(re.search(r"50%\s+([\d.]+)(us|ms|s)", out)),
            "p99_ms": _ms(re.search(r"99%\s+([\d.]+)(us|ms|s)", out)),
            "cpu_us": (self.cpu - before) / max(1, requests) * 1e6,
        }

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def _ms(match: re.Match[str] | None) -> float:
    if match is None:
        return float("nan")
    return float(match[1]) * {"us": 1e-3, "ms": 1.0, "s": 1e3}[match[2]]


def servers(folder: Path) -> list[Server]:
    """Ours with everything on, the HTTP ceiling, and a bare loop without batching."""
    made = yard.Yard.make(folder / "yard")
    made.serve(("mlp", "cnn"))
    graphs = {}
    for kind, graph in (("mlp", yard.mlp()), ("cnn", yard.cnn())):
        graphs[kind] = folder / f"{kind}.onnx"
        graphs[kind].write_bytes(graph)
    ours = free_port()
    options = {
        "state": str(folder / "state"),
        "root": str(made.folder / "store"),
        "keys": str(made.keys),
        "port": ours,
    }
    made.store.close()
    started = [Server("modelyard", [sys.executable, str(HERE / "serve_ours.py"), json.dumps(options)], ours)]
    for name in ("constant", "bare"):
        port = free_port()
        command = [
            sys.executable,
            str(HERE / "serve_bare.py"),
            name,
            str(port),
            str(graphs["mlp"]),
            str(graphs["cnn"]),
        ]
        started.append(Server(name, command, port))
    return started


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    if shutil.which("wrk") is None:
        raise SystemExit("wrk is not installed: apt-get install wrk")
    folder = Path(tempfile.mkdtemp(prefix="bench-serve-"))
    running = servers(folder)
    results: dict[tuple[str, str, int], list[dict[str, float]]] = {}
    try:
        loads = [(name, facts, c) for name, facts in bodies(folder).items() for c in (1, 64)]
        for _ in range(given.rounds):
            for name, facts, connections in loads:
                for server in running:
                    if server.name == "bare" and name.endswith("binary"):
                        continue
                    path = f"/v2/models/{facts['endpoint']}/infer"
                    run = server.load(facts["script"], path, connections, given.seconds)
                    results.setdefault((name, server.name, connections), []).append(run)
        memory = {server.name: server.memory for server in running}
    finally:
        for server in running:
            server.stop()
        shutil.rmtree(folder, ignore_errors=True)
    rows = [
        {"body": body, "server": server, "c": connections}
        | {key: round(statistics.median(run[key] for run in runs), 3) for key in runs[0]}
        for (body, server, connections), runs in sorted(
            results.items(), key=lambda item: (item[0][0], item[0][2])
        )
    ]
    if given.json:
        print(json.dumps({"rows": rows, "rss_mb": memory}))
        return
    print(
        f"{'body':<12} {'c':>3} {'server':<10} {'req/s':>9} {'of ceiling':>10} "
        f"{'p50 ms':>8} {'p99 ms':>8} {'CPU us':>8}"
    )
    ceiling = {(row["body"], row["c"]): row["rps"] for row in rows if row["server"] == "constant"}
    for row in rows:
        share = row["rps"] / ceiling[row["body"], row["c"]]
        print(f"{row['body']:<12} {row['c']:>3} {row['server']:<10} {row['rps']:>9.0f} {share:>10.0%} "
              f"{row['p50_ms']:>8.3f} {row['p99_ms']:>8.3f} {row['cpu_us']:>8.1f}")  # fmt: skip
    print("RSS MB", memory)


if __name__ == "__main__":
    main()
