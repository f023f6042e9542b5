"""The servers that people use today, each in an environment of its own, to measure beside ours.

python benchmarks/serve/peers.py [NAME...]     installs them, asks each variant, prints who answers right
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
import serve_yard as yard
from serve.ask import Ask, asks
from serve.server import Failed, Form, Server, free_port

SCRIPT = Path(__file__).with_name("peer_server.py")
HOMES = Path(tempfile.gettempdir()) / "modelyard-peers"
INSTALL_SECONDS = 1_200
PLAIN = Form("/{model}")
ARRAY = Form("/{model}", "array")


@dataclass(frozen=True)
class Peer:
    """A server: what pip installs for it, how it is asked, and which ways of using it are tried.

    `start` bounds its start; `seconds` is the least that one run of load must last to count answers.
    `quick` is whether it starts so fast, and is so quiet at rest, that every short run may hold it.
    """

    name: str
    packages: tuple[str, ...]
    variants: tuple[str, ...]
    form: Form = PLAIN
    start: float = 60.0
    seconds: int = 3
    quick: bool = False


_BOTH = ("onnxruntime", "numpy")
PEERS = (
    Peer("fastapi", ("fastapi", "uvicorn[standard]", "orjson", *_BOTH), ("model", "orjson", "threads"),
         quick=True),
    Peer("mlserver", ("mlserver", *_BOTH), ("inline", "batch"), Form()),
    Peer("bentoml", ("bentoml", *_BOTH), ("single", "batch"), ARRAY),
    Peer("litserve", ("litserve", *_BOTH), ("single", "batch", "fast")),
    Peer("pytriton", ("nvidia-pytriton", *_BOTH), ("batch",), Form(body="binary")),
    Peer("ray", ("ray[serve]", *_BOTH), ("single", "batch"), start=150.0, seconds=4),
)  # fmt: skip


def environment(peer: Peer, folder: Path = HOMES) -> Path:
    """The Python of the peer's environment, made when it is not there; raises `Failed` saying why not."""
    home = folder / peer.name
    python = home / "bin" / "python"
    if (home / "ready").exists():
        return python
    print(f"installing {peer.name} into {home}", file=sys.stderr)
    try:
        subprocess.run([sys.executable, "-m", "venv", str(home)], check=True, capture_output=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *peer.packages], check=True,
                       capture_output=True, text=True, timeout=INSTALL_SECONDS)  # fmt: skip
    except subprocess.SubprocessError as error:
        lines = [line for line in str(getattr(error, "stderr", "") or error).splitlines() if line.strip()]
        raise Failed(f"{peer.name} does not install: {lines[-1] if lines else error}") from None
    (home / "ready").touch()
    return python


def begin(peer: Peer, variant: str, files: Mapping[str, Path], known: Mapping[tuple[str, str], Ask],
          folder: Path = HOMES) -> tuple[Server, float]:  # fmt: skip
    """The peer running, both models answering right, and the seconds to its first right answer.

    Raises `Failed` where it does not install, does not start, or gives wrong answers.
    """
    python = environment(peer, folder)
    port = free_port(3)
    command = [str(python), str(SCRIPT), peer.name, variant, str(port), str(files["mlp"]), str(files["cnn"])]
    os.environ["PYTHONPATH"], kept = "", os.environ.get("PYTHONPATH")
    try:
        server = Server(f"{peer.name}-{variant}", command, port, peer.form)
    finally:
        if kept is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = kept
    try:
        path = peer.form.path
        took = server.wait(lambda: known["mlp", peer.form.body].answered(port, path), peer.start)
        server.wait(lambda: known["cnn", peer.form.body].answered(port, path), peer.start + 10)
    except BaseException:
        server.stop()
        raise
    return server, took


def versions(peer: Peer, folder: Path = HOMES) -> str:
    """What of the peer is installed, for the table's foot."""
    name = peer.packages[0].partition("[")[0]
    code = "import sys, importlib.metadata as m; print(m.version(sys.argv[1]))"
    python = str(environment(peer, folder))
    said = subprocess.run([python, "-c", code, name], capture_output=True, text=True, check=False)
    return f"{name} {said.stdout.strip()}"


def chosen(names: str) -> Iterator[Peer]:
    """The peers of a list with commas; all for `all`."""
    wanted = names.split(",")
    if unknown := {*wanted} - {"all", *(peer.name for peer in PEERS)}:
        raise SystemExit(f"no such peer: {', '.join(sorted(unknown))}; there are "
                         + ", ".join(peer.name for peer in PEERS))  # fmt: skip
    return (peer for peer in PEERS if "all" in wanted or peer.name in wanted)


def main() -> None:
    folder = Path(tempfile.mkdtemp(prefix="bench-peers-"))
    graphs = {"mlp": yard.mlp(), "cnn": yard.cnn(channels=96)}
    files = {model: folder / f"{model}.onnx" for model in graphs}
    for model, graph in graphs.items():
        files[model].write_bytes(graph)
    known = asks(folder, graphs)
    for peer in chosen(",".join(sys.argv[1:]) or "all"):
        for variant in peer.variants:
            began = time.perf_counter()
            try:
                server, took = begin(peer, variant, files, known)
            except Failed as error:
                print(f"{error} ({time.perf_counter() - began:.0f} s)")
                continue
            said = [f"start {took:.1f} s"]
            for model, connections in (("mlp", 1), ("mlp", 64), ("cnn", 64)):
                path = peer.form.path.format(model=model)
                try:
                    run = server.load(known[model, peer.form.body].script, path, connections, peer.seconds)
                    said.append(f"{model} c={connections}: {run['rps']:.0f}/s p99 {run['p99_ms']:.1f} ms")
                except Failed as error:
                    said.append(str(error))
            print(f"{server.name}: {'; '.join(said)}; {server.memory:.0f} MB", flush=True)
            server.stop()


if __name__ == "__main__":
    main()
