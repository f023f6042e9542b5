"""A server under measurement: its whole process tree on core 0, its load from core 1."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

SERVER_CORE, LOAD_CORE = "0", "1"
TICK = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")
QUIET = 0.005
"""Share of the cores that the host may take during a run that counts as undisturbed."""
TRIES = 4

T = TypeVar("T")


class Failed(Exception):
    """A server did not start, answered wrongly, or with errors."""


@dataclass(frozen=True)
class Form:
    """How a server is asked about a model: the path (with `{model}`) and the kind of the body."""

    path: str = "/v2/models/{model}/infer"
    body: str = "json"


def quietest(run: Callable[[], T]) -> tuple[T, float]:
    """The result of the least disturbed of a few runs, and the share of the cores that the host took then.

    A virtual machine stands still while its host runs others: the first run during which it hardly did is it.
    """
    found: list[tuple[float, T]] = []
    for _ in range(TRIES):
        before, began = _stolen(), time.monotonic()
        result = run()
        taken = (_stolen() - before) / (time.monotonic() - began) / (os.cpu_count() or 1)
        found.append((taken, result))
        if taken <= QUIET:
            break
    taken, result = min(found, key=lambda pair: pair[0])
    return result, taken


def _stolen() -> float:
    """Seconds since the machine's start that its host took from it: `steal` in proc_stat(5)."""
    return int(Path("/proc/stat").read_text().split(maxsplit=9)[8]) / TICK


def free_port(count: int = 1) -> int:
    """The first of `count` ports in a row that are free now."""
    for _ in range(100):
        with contextlib.ExitStack() as held:
            first = held.enter_context(socket.socket())
            first.bind(("127.0.0.1", 0))
            port = int(first.getsockname()[1])
            try:
                for more in range(1, count):
                    held.enter_context(socket.socket()).bind(("127.0.0.1", port + more))
            except (OSError, OverflowError):
                continue
            return port
    raise Failed(f"no {count} free ports in a row")


class Server:
    """A server process and all that it starts, pinned to core 0."""

    def __init__(self, name: str, command: list[str], port: int, form: Form | None = None) -> None:
        self.name = name
        self.port = port
        self.form = form or Form()
        self.log = Path(tempfile.mkstemp(prefix=f"bench-serve-{name}-", suffix=".log")[1])
        self.began = time.perf_counter()
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                ["taskset", "-c", SERVER_CORE, *command], env={**os.environ, "OMP_NUM_THREADS": "1"},
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    def wait(self, ready: Callable[[], bool], limit: float = 60.0) -> float:
        """Seconds from the process's start until `ready`; raises `Failed` past the limit or when it ends."""
        while True:
            with contextlib.suppress(OSError):
                if ready():
                    return time.perf_counter() - self.began
            if self.process.poll() is not None:
                raise Failed(f"{self.name} has ended: {self.last_words()}")
            if time.perf_counter() - self.began > limit:
                raise Failed(f"{self.name} gives no right answer within {limit:.0f} s: {self.last_words()}")
            time.sleep(0.01)

    def listens(self) -> bool:
        """Whether a connection is taken."""
        socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        return True

    def last_words(self) -> str:
        """The last line of its log that says anything."""
        lines = [line.strip() for line in self.log.read_text(errors="replace").splitlines() if line.strip()]
        return lines[-1][:200] if lines else f"it says nothing (exit {self.process.poll()})"

    @property
    def cpu(self) -> float:
        """Seconds of CPU time that all its processes, and those of them that have ended, used."""
        return sum(sum(map(int, fields[11:15])) for fields in self._tree().values()) / TICK

    @property
    def memory(self) -> float:
        """Resident megabytes of all its processes; pages that several share count in each."""
        return sum(int(fields[21]) for fields in self._tree().values()) * PAGE / 1e6

    def settle(self, limit: float = 5.0) -> None:
        """Waits until it has done with the requests that a load left behind, so the next begins fresh."""
        until = time.monotonic() + limit
        before = self.cpu
        while time.monotonic() < until:
            time.sleep(0.25)
            now = self.cpu
            if now - before <= 0.02:
                return
            before = now

    def pause(self) -> None:
        """Stops all its processes, so that its idle work does not disturb another's measurement."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def _tree(self) -> dict[int, list[str]]:
        """The fields of /proc/PID/stat behind the name, of every process in the server's tree or session."""
        all_of: dict[int, list[str]] = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                # A process that ends between the listing and the reading is none of the tree any more.
                with contextlib.suppress(OSError):
                    all_of[int(entry.name)] = (entry / "stat").read_text().rpartition(")")[2].split()
        mine = {pid for pid, fields in all_of.items() if int(fields[3]) == self.process.pid}
        grown = True
        while grown:
            more = {pid for pid, fields in all_of.items() if int(fields[1]) in mine} - mine
            mine |= more
            grown = bool(more)
        return {pid: all_of[pid] for pid in mine}

    def _signal(self, number: signal.Signals) -> None:
        for pid in self._tree():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def stop(self) -> None:
        """Ends the server and whatever of its tree has outlived it."""
        self.resume()
        tree = self._tree()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(10)
        until = time.monotonic() + 2
        while self._tree() and time.monotonic() < until:
            time.sleep(0.05)
        # A child that has left the session is found by its start time, which a reused number would not have.
        for pid, fields in (tree | self._tree()).items():
            with contextlib.suppress(OSError):
                now = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                if now[19] == fields[19]:
                    os.kill(pid, signal.SIGKILL)
        self.process.wait()
        self.log.unlink(missing_ok=True)

    def load(self, script: str, path: str, connections: int, seconds: int) -> dict[str, float]:
        """One run of wrk: requests a second, p50 and p99 in ms, server CPU microseconds a request."""
        before = self.cpu
        url = f"http://127.0.0.1:{self.port}{path}"
        command = ["taskset", "-c", LOAD_CORE, "wrk", "-t1", f"-c{connections}", f"-d{seconds}s",
                   "--timeout", "20s", "--latency", "-s", script, url]  # fmt: skip
        ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds + 60)
        out = ended.stdout
        bad = re.search(r"Non-2xx.*: (\d+)", out)
        requests = re.search(r"(\d+) requests in", out)
        if bad or requests is None or requests[1] == "0":
            said = f"{bad[1]} answers are errors" if bad else f"no answer in {seconds} s"
            raise Failed(f"{self.name} {path} c={connections}: {said}")
        broken = re.search(r"Socket errors: (.+)", out)
        return {
            "rps": float(re.search(r"Requests/sec:\s+([\d.]+)", out)[1]),  # type: ignore[index]
            "p50_ms": _ms(re.search(r"\b50%\s+([\d.]+)(us|ms|s)", out)),
            "p99_ms": _ms(re.search(r"\b99%\s+([\d.]+)(us|ms|s)", out)),
            "cpu_us": (self.cpu - before) / int(requests[1]) * 1e6,
            "broken": float(sum(map(int, re.findall(r"\d+", broken[1])))) if broken else 0.0,
        }


def _ms(match: re.Match[str] | None) -> float:
    if match is None:
        return float("nan")
    return float(match[1]) * {"us": 1e-3, "ms": 1.0, "s": 1e3}[match[2]]
