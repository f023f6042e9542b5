"""What a gRPC request costs the server: grpcio alone, ours, and ours over HTTP with binary tensors.

    .venv/bin/python benchmarks/serve/grpc_cost.py [--seconds 2] [--rounds 3]

Prints JSON: for each server the median of its CPU microseconds a request (all its threads, from the kernel's
clock of the process) and of the requests a second that one client got, with 1 and with 32 under way. `aio`
is `grpc.aio` with a constant answer and no checks: what grpcio's own server costs on this machine. Servers
run on core 0, the client on core 1; the rounds are interleaved.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import grpc
import uvloop

sys.path.insert(0, str(Path(__file__).parents[1]))
import serve_yard as yard

from modelyard.serve.conform.exchange import Request
from modelyard.serve.grpc.messages import SERVICE, messages
from modelyard.serve.load.generator import LoadOptions, closed_loop
from modelyard.serve.load.target import target_of
from modelyard.serve.options import Limits, LogOptions, ServeOptions
from modelyard.serve.process import bind

METHOD = f"/{SERVICE}/ModelInfer"
# A proxy from the environment would take the traffic elsewhere.
DIRECT = [("grpc.enable_http_proxy", 0)]


def infer_bytes() -> bytes:
    """One item for `mlp`, as raw contents."""
    values = yard.rows_of("mlp", 1, seed=3)["x"]
    made = messages()["ModelInferRequest"](model_name="mlp")
    made.inputs.add(name="x", datatype="FP32", shape=values.shape)
    made.raw_input_contents.append(values.tobytes())
    return bytes(made.SerializeToString())


def answer_bytes() -> bytes:
    """An answer of the size that `mlp` gives."""
    made = messages()["ModelInferResponse"](model_name="mlp", model_version="1", id="0123456789ab-1")
    made.outputs.add(name="probabilities", datatype="FP32", shape=[1, 10])
    made.raw_output_contents.append(bytes(40))
    return bytes(made.SerializeToString())


async def constant(port: int) -> None:
    """grpcio's asyncio server, which reads nothing and answers the same."""
    answer = answer_bytes()

    async def infer(_: bytes, __: Any) -> bytes:
        return answer

    server = grpc.aio.server()
    handlers = {"ModelInfer": grpc.unary_unary_rpc_method_handler(infer)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


def ours(folder: Path, port: int, grpc_port: int) -> None:
    from modelyard.serve.worker import serve  # noqa: PLC0415 - the bare server is to import none of it

    options = ServeOptions(
        state=folder / "state", root=folder / "store", keys=folder / "keys", endpoints=("mlp",),
        port=port, grpc_port=grpc_port, limits=Limits(), log=LogOptions(),
    )  # fmt: skip
    uvloop.run(serve(options, bind(options.host, port, 1024)))


def cpu(process: subprocess.Popen[bytes]) -> float:
    """Seconds of CPU that the process has used: its clock's number is made of its id (Linux)."""
    return time.clock_gettime((~process.pid << 3) | 2)


def over_grpc(port: int, under_way: int, seconds: float) -> int:
    """Requests that one channel had answered."""
    data = infer_bytes()
    with grpc.insecure_channel(f"127.0.0.1:{port}", options=DIRECT) as channel:
        ask = channel.unary_unary(METHOD)
        ends = time.monotonic() + seconds
        if under_way == 1:
            count = 0
            while time.monotonic() < ends:
                ask(data, timeout=20)
                count += 1
            return count
        return _crowd(ask, data, under_way, ends)


def _crowd(ask: Any, data: bytes, under_way: int, ends: float) -> int:
    finished = threading.Event()
    count, left = 0, under_way

    def again(call: Any) -> None:
        nonlocal count, left
        call.result()
        count += 1
        if time.monotonic() < ends:
            ask.future(data, timeout=20).add_done_callback(again)
            return
        left -= 1
        if not left:
            finished.set()

    for _ in range(under_way):
        ask.future(data, timeout=20).add_done_callback(again)
    if not finished.wait(60):
        raise RuntimeError("answers are missing")
    return count


def over_http(port: int, under_way: int, seconds: float) -> int:
    values = yard.rows_of("mlp", 1, seed=3)["x"]
    tensor = {"name": "x", "datatype": "FP32", "shape": list(values.shape),
              "parameters": {"binary_data_size": values.nbytes}}  # fmt: skip
    head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    kind = {"inference-header-content-length": str(len(head)), "content-type": "application/octet-stream"}
    request = Request("POST", "/v2/models/mlp/infer", head + values.tobytes(), kind)
    target = target_of(f"http://127.0.0.1:{port}", [request])
    result = closed_loop(target, LoadOptions(seconds=seconds, warmup=0.0, connections=under_way))
    return int(result.sent)


def reachable(port: int) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{port}", options=DIRECT) as channel:
        grpc.channel_ready_future(channel).result(timeout=30)
        channel.unary_unary(METHOD)(infer_bytes(), timeout=20)


def measure(servers: dict[str, Any], seconds: float, rounds: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for _ in range(rounds):
        for name, (process, port, load) in servers.items():
            for under_way in (1, 32):
                load(port, under_way, 0.2)
                before, began = cpu(process), time.monotonic()
                count = load(port, under_way, seconds)
                kept = found.setdefault(name, {}).setdefault(str(under_way), {"cpu_us": [], "rps": []})
                kept["cpu_us"].append((cpu(process) - before) / count * 1e6)
                kept["rps"].append(count / (time.monotonic() - began))
    return {
        name: {crowd: {what: round(statistics.median(values), 1) for what, values in kept.items()}
               for crowd, kept in crowds.items()} for name, crowds in found.items()
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--serve", nargs="+", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        kind, *rest = given.serve
        if kind == "aio":
            uvloop.run(constant(int(rest[0])))
        else:
            ours(Path(rest[0]), int(rest[1]), int(rest[2]))
        return
    cores = sorted(os.sched_getaffinity(0))
    bare, http, ported = (bind("127.0.0.1", 0, 1) for _ in range(3))
    ports = [found.getsockname()[1] for found in (bare, http, ported)]
    for found in (bare, http, ported):
        found.close()
    with tempfile.TemporaryDirectory() as folder:
        yard.Yard.make(Path(folder)).serve(("mlp",))
        # Only from here on: the servers inherit core 0 from `taskset`, this process keeps the other.
        os.sched_setaffinity(0, {cores[-1]})
        command = ["taskset", "-c", str(cores[0]), sys.executable, __file__, "--serve"]
        alone = subprocess.Popen([*command, "aio", str(ports[0])])
        whole = subprocess.Popen([*command, "ours", folder, str(ports[1]), str(ports[2])],
                                 stderr=subprocess.DEVNULL)  # fmt: skip
        try:
            reachable(ports[0])
            reachable(ports[2])
            servers = {
                "aio": (alone, ports[0], over_grpc),
                "ours_grpc": (whole, ports[2], over_grpc),
                "ours_http_binary": (whole, ports[1], over_http),
            }
            found = measure(servers, given.seconds, given.rounds)
        finally:
            for process in (alone, whole):
                process.terminate()
                process.wait(20)
    ratio = {
        crowd: round(found["ours_grpc"][crowd]["cpu_us"] / found["aio"][crowd]["cpu_us"], 2)
        for crowd in ("1", "32")
    }
    print(json.dumps({"servers": found, "ours_to_aio_cpu": ratio}, indent=1))


if __name__ == "__main__":
    main()
