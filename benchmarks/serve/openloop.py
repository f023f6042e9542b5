"""The open loop in C, for servers that answer more requests a second than Python can send."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from serve.server import LOAD_CORE, Failed

from modelyard.serve.load.schedule import Arrivals

SOURCE = Path(__file__).with_name("openloop.c")
HOME = Path(tempfile.gettempdir()) / "modelyard-openloop"
FLAGS = ("-std=c11", "-O2", "-Wall", "-Wextra", "-Werror")
GIVES_UP = 5.0
"""Seconds after the last request was due until which it waits for answers."""


@dataclass(frozen=True)
class Loaded:
    """One run of the open loop. All times in seconds.

    `latency` and `lateness` are by `p50`, `p90`, `p99`, `p999` and `max`. `latency` counts from when a
    request was due to the last byte of its 200, or to the end of the wait for it; `lateness` is the
    generator's own, from when a request was due and a connection free to its write.
    """

    sent: int
    answered: int
    failed: int
    """Requests without a whole answer, or with another status than 200."""
    errors: Mapping[str, int]
    """Of `failed`: those without a whole answer, by cause."""
    statuses: Mapping[str, int]
    seconds: float
    overtime: float
    """From the planned end to the last answer."""
    latency: Mapping[str, float]
    lateness: Mapping[str, float]


def program(folder: Path = HOME) -> Path:
    """The generator, compiled when this source has not been yet; raises `Failed` saying why it cannot be."""
    built = folder / f"openloop-{hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:16]}"
    if built.exists():
        return built
    if shutil.which("cc") is None:
        raise Failed("the load generator needs a C compiler, cc: apt-get install gcc")
    folder.mkdir(parents=True, exist_ok=True)
    fresh = built.with_suffix(f".{os.getpid()}")
    command = ["cc", *FLAGS, "-o", str(fresh), str(SOURCE), "-lm"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise Failed(f"the load generator does not compile: {ended.stderr.strip()[:500]}")
    fresh.replace(built)
    return built


def load(
    port: int, request: bytes, rate: float, *, seconds: float, warmup: float = 0.5, connections: int = 256,
    kind: Arrivals = "poisson", seed: int = 0, core: str = LOAD_CORE,
) -> Loaded:  # fmt: skip
    """Sends one request to a port of this machine, at a rate that does not depend on the answers.

    Raises `Failed` where the generator cannot be made, cannot connect, or gets no answer with 200.
    """
    with tempfile.NamedTemporaryFile(prefix="openloop-") as file:
        file.write(request)
        file.flush()
        numbers = map(str, (rate, seconds, warmup, connections, kind, seed))
        command = ["taskset", "-c", core, str(program()), "127.0.0.1", str(port), file.name, *numbers]
        limit = warmup + seconds + GIVES_UP + 30
        try:
            ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=limit)
        except subprocess.TimeoutExpired:
            raise Failed(f"the load generator has not ended within {limit:.0f} s") from None
    if ended.returncode:
        raise Failed(ended.stderr.strip()[:200] or f"the load generator ended with {ended.returncode}")
    found = Loaded(**json.loads(ended.stdout))
    if not found.statuses.get("200"):
        raise Failed(f"no answer with 200 at {rate:.0f}/s: statuses {found.statuses}, errors {found.errors}")
    return found
