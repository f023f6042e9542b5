"""The servers that people use today, each in an environment of its own, to measure beside ours."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

SERVER = Path(__file__).with_name("peer_server.py")


@dataclass(frozen=True)
class Peer:
    """A server: what pip installs for it, and under which path it answers for a model."""

    name: str
    packages: tuple[str, ...]
    path: str


PEERS = (
    Peer("fastapi", ("fastapi", "uvicorn[standard]", "orjson", "onnxruntime", "numpy"), "/{model}"),
    Peer("mlserver", ("mlserver", "onnxruntime", "numpy"), "/v2/models/{model}/infer"),
    Peer("bentoml", ("bentoml", "onnxruntime", "numpy"), "/{model}"),
    Peer("litserve", ("litserve", "onnxruntime", "numpy"), "/{model}"),
    Peer("pytriton", ("nvidia-pytriton", "onnxruntime", "numpy"), "/v2/models/{model}/infer"),
    Peer("ray", ("ray[serve]", "onnxruntime", "numpy"), "/{model}"),
)


def environment(peer: Peer, folder: Path) -> Path | str:
    """The Python of the peer's environment, made when it is not there; a sentence when it cannot be."""
    home = folder / peer.name
    python = home / "bin" / "python"
    if (home / "ready").exists():
        return python
    try:
        subprocess.run([sys.executable, "-m", "venv", str(home)], check=True, capture_output=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *peer.packages], check=True,
                       capture_output=True, text=True, timeout=900)  # fmt: skip
    except subprocess.SubprocessError as error:
        lines = str(getattr(error, "stderr", "") or error).strip().splitlines()
        return f"{peer.name} does not install: {lines[-1] if lines else error}"
    (home / "ready").touch()
    return python
