"""The serving plane against the HTTP ceiling and against a bare loop, interleaved in one run.

    .venv/bin/python benchmarks/bench_serve.py [--seconds 3] [--rounds 3] [--peers] [--json]

Needs `wrk` and two cores: the server with all its threads on core 0, `wrk` on core 1. Beside requests a
second it counts the server's own CPU time per request, which other work on the machine disturbs less.
"""

from __future__ import annotations

import argparse
import http.client
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
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import serve_yard as yard
from serve.peers import PEERS, SERVER, environment

from modelyard.release.policy import Single
from modelyard.serve.load.generator import LoadOptions, open_loop
from modelyard.serve.load.target import Target

HERE = Path(__file__).parent
CHANNELS = 96
"""Of the convolutional network: about 5.6 ms an item on the machine whose figures the bar starts from."""
BINARY = ("modelyard", "constant")
"""Who reads the protocol's binary tensors."""
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
        self.path = "/v2/models/{model}/infer"
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
        if self.process.poll() is not None:
            return
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


def servers(folder: Path, peers: Path | None = None, *, bare_only: bool = True) -> list[Server]:
    """Ours with everything on (and without the log), the HTTP ceiling, a bare loop, and the peers."""
    made = yard.Yard.make(folder / "yard")
    made.serve(("mlp",))
    made.set("cnn", Single(made.release("cnn", yard.cnn(channels=CHANNELS)).digest))
    graphs = {}
    for kind, graph in (("mlp", yard.mlp()), ("cnn", yard.cnn(channels=CHANNELS))):
        graphs[kind] = folder / f"{kind}.onnx"
        graphs[kind].write_bytes(graph)
    made.store.close()
    started = []
    for name, sample in (("modelyard", 1.0),) if bare_only else (("modelyard", 1.0), ("no-log", 0.0)):
        options = {
            "state": str(folder / f"state-{name}"),
            "root": str(made.folder / "store"),
            "keys": str(made.keys),
            "port": free_port(),
            "sample": sample,
        }
        command = [sys.executable, str(HERE / "serve_ours.py"), json.dumps(options)]
        started.append(Server(name, command, int(options["port"])))
    files = [str(graphs["mlp"]), str(graphs["cnn"])]
    for name in ("constant", "bare"):
        port = free_port()
        started.append(
            Server(name, [sys.executable, str(HERE / "serve_bare.py"), name, str(port), *files], port)
        )
    for peer in PEERS if peers is not None else ():
        python = environment(peer, peers)
        if isinstance(python, str):
            print(python)
            continue
        port = free_port()
        try:
            server = Server(
                peer.name,
                [str(python), str(SERVER), peer.name, str(port), *files],
                port,
            )
            server.path = peer.path
            started.append(server)
        except RuntimeError as error:
            print(error)
    return started


@dataclass
class Line:
    """One line of the bar: what was measured against what is asked."""

    what: str
    target: str
    measured: str
    holds: bool | None

    def __str__(self) -> str:
        mark = {True: "holds", False: "FAILS", None: "not measured"}[self.holds]
        return f"{self.what:<52} {self.target:>22} {self.measured:>26}  {mark}"


def bare_loop(kind: str, seconds: float) -> float:
    """Items a second of onnxruntime alone, in a process of its own on the server's core."""
    code = (
        "import sys, time; sys.path.insert(0, sys.argv[1]); import serve_yard as y, onnxruntime as o\n"
        "s = o.SessionOptions(); s.intra_op_num_threads = 1\n"
        f"graph = y.mlp() if sys.argv[2] == 'mlp' else y.cnn(channels={CHANNELS})\n"
        "e = o.InferenceSession(graph, s, providers=['CPUExecutionProvider'])\n"
        "x = y.rows_of(sys.argv[2], 1)\n"
        "end = time.perf_counter() + float(sys.argv[3]); n = 0; b = time.process_time()\n"
        "while time.perf_counter() < end: e.run(None, x); n += 1\n"
        "print((time.process_time() - b) / n)"
    )
    command = ["taskset", "-c", "0", sys.executable, "-c", code, str(HERE), kind, str(seconds)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def start_and_memory(folder: Path) -> tuple[float, float]:
    """Seconds from starting the process to its first right answer, and its resident MB, one small model."""
    made = yard.Yard.make(folder / "start")
    made.serve(("mlp",))
    made.store.close()
    port = free_port()
    options = {
        "state": str(folder / "start-state"),
        "root": str(made.folder / "store"),
        "keys": str(made.keys),
        "port": port,
        "endpoints": ["mlp"],
    }
    inputs = yard.rows_of("mlp", 1, seed=3)
    body = json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 64],
                                   "data": inputs["x"].ravel().tolist()}]})  # fmt: skip
    right = yard.answers_of(yard.mlp(), inputs).ravel()
    times = []
    memory = 0.0
    for _ in range(3):
        began = time.perf_counter()
        server = Server("start", [sys.executable, str(HERE / "serve_ours.py"), json.dumps(options)], port)
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        connection.request("POST", "/v2/models/mlp/infer", body)
        answer = json.loads(connection.getresponse().read())["outputs"][0]["data"]
        times.append(time.perf_counter() - began)
        if abs(answer - right).max() > 1e-4:
            raise RuntimeError("the first answer is wrong")
        time.sleep(1.5)
        memory = server.memory
        server.stop()
    return min(times), memory


def overload(server: Server, capacity: float, seconds: float) -> tuple[float, int, int]:
    """Goodput at three times the capacity as a share of it, how many were refused, how many came late."""
    values = yard.rows_of("cnn", 1, seed=3)["x"].tobytes()
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, 3, 64, 64],
              "parameters": {"binary_data_size": len(values)}}  # fmt: skip
    head = json.dumps({"inputs": [tensor], "parameters": {"timeout": 250_000}}).encode()
    request = (
        (
            b"POST /v2/models/cnn/infer HTTP/1.1\r\nHost: x\r\nContent-Type: application/octet-stream\r\n"
            b"Inference-Header-Content-Length: %d\r\nContent-Length: %d\r\n\r\n"
            % (len(head), len(head) + len(values))
        )
        + head
        + values
    )
    options = LoadOptions(seconds=seconds, warmup=1.0, connections=1_000, deadline=0.5)
    found = open_loop(Target("127.0.0.1", server.port, (request,)), options, 3 * capacity)
    refused = sum(count for status, count in found.statuses.items() if status in (429, 503, 504))
    late = sum(count for status, count in found.statuses.items() if status == 200) - found.good
    return found.good / found.seconds / capacity, refused, late


def bar(
    rows: list[dict[str, Any]], folder: Path, running: list[Server], given: argparse.Namespace
) -> list[Line]:
    """Every line of the bar that this run can tell."""
    at = {(row["body"], row["server"], row["c"]): row for row in rows}
    ours, ceiling, bare = (at["mlp-json", name, 64] for name in ("modelyard", "constant", "bare"))
    one, bare_one = at["mlp-json", "modelyard", 1], at["mlp-json", "bare", 1]
    lines = []

    def line(
        what: str, target: float, value: float, *, most: bool = False, unit: str = "", note: str = ""
    ) -> None:
        holds = value <= target if most else value >= target
        lines.append(
            Line(what, f"{'<=' if most else '>='} {target:g}{unit}", f"{value:.3g}{unit} {note}", holds)
        )

    peer = at.get(("mlp-json", "fastapi", 64))
    if peer is not None:
        line("mlp c=64 against FastAPI", 5.0, ours["rps"] / peer["rps"], unit="x")
    else:
        lines.append(Line("mlp c=64 against FastAPI", ">= 5x", "(run with --peers)", None))
    line("mlp c=64 of the HTTP ceiling", 0.6, ours["rps"] / ceiling["rps"], note="req/s")
    line("  the same by CPU time a request", 0.6, ceiling["cpu_us"] / ours["cpu_us"])
    line("  against the bare loop", 1.0, ours["rps"] / bare["rps"], unit="x")
    line("mlp c=1 p50 against the bare loop", 1.3, one["p50_ms"] / bare_one["p50_ms"], most=True, unit="x")
    without = at.get(("mlp-json", "no-log", 64))
    if without is not None:
        line("the log at c=64, of throughput", 0.03, 1 - without["cpu_us"] / ours["cpu_us"], most=True)
    loop = bare_loop("cnn", 3.0)
    for body, target in (("cnn-binary", 0.97), ("cnn-json", 0.92)):
        note = f"{loop * 1e3:.2f} ms alone"
        line(
            f"{body} c=64 of onnxruntime alone, CPU",
            target,
            loop * 1e6 / at[body, "modelyard", 64]["cpu_us"],
            note=note,
        )
    server = next(item for item in running if item.name == "modelyard")
    share, refused, late = overload(server, at["cnn-binary", "modelyard", 64]["rps"], given.seconds * 2)
    line("goodput at 3 times capacity", 0.9, share, note=f"{refused} refused")
    line("  answers after their deadline", 0, late, most=True)
    for item in running:
        item.stop()
    seconds, memory = start_and_memory(folder)
    line("start to the first right answer, s", 1.2, seconds, most=True)
    line("RSS with one small model, MB", 200, memory, most=True)
    if given.models:
        command = [sys.executable, str(HERE / "serve" / "many.py"), str(given.models), str(given.models // 2)]
        many = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        line(f"{given.models} models: RSS, MB", 1500, many["rss_mb"], most=True)
        line("  a cold model's first answer, ms (p99)", 50, many["cold_ms_p99"], most=True)
        line("  p99 of a warm one among them", 1.2, many["warm_p99_ratio"], most=True, unit="x")
        line("  slope over load, infer, unload, kB a cycle", 5, many["slope_kb_a_cycle"], most=True)
    return lines


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--models", type=int, default=1000, help="0 leaves the many models out")
    parser.add_argument("--peers", action="store_true", help="install today's servers and measure them too")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    if shutil.which("wrk") is None:
        raise SystemExit("wrk is not installed: apt-get install wrk")
    folder = Path(tempfile.mkdtemp(prefix="bench-serve-"))
    homes = Path(tempfile.gettempdir()) / "modelyard-peers" if given.peers else None
    running = servers(folder, homes, bare_only=False)
    results: dict[tuple[str, str, int], list[dict[str, float]]] = {}
    try:
        loads = [(name, facts, c) for name, facts in bodies(folder).items() for c in (1, 64)]
        for _ in range(given.rounds):
            for name, facts, connections in loads:
                for server in running:
                    if server.name not in BINARY and name.endswith("binary"):
                        continue
                    if server.name == "no-log" and name != "mlp-json":
                        continue
                    path = server.path.format(model=facts["endpoint"])
                    try:
                        run = server.load(facts["script"], path, connections, given.seconds)
                    except RuntimeError as error:
                        print(str(error).splitlines()[0])
                        continue
                    results.setdefault((name, server.name, connections), []).append(run)
        memory = {server.name: server.memory for server in running}
        rows = [
            {"body": body, "server": server, "c": connections}
            | {key: round(statistics.median(run[key] for run in runs), 3) for key in runs[0]}
            for (body, server, connections), runs in sorted(
                results.items(), key=lambda item: (item[0][0], item[0][2])
            )
        ]
        lines = bar(rows, folder, running, given)
    finally:
        for server in running:
            server.stop()
        shutil.rmtree(folder, ignore_errors=True)
    if given.json:
        print(json.dumps({"rows": rows, "rss_mb": memory, "bar": [asdict(line) for line in lines]}))
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
    print("load average", Path("/proc/loadavg").read_text().strip())
    print(*lines, sep="\n")


if __name__ == "__main__":
    main()
