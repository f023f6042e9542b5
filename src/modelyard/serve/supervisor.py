"""Several workers on one socket, and a new one in the place of any that dies."""

from __future__ import annotations

import logging
import os
import signal
import socket
import time
from pathlib import Path

from modelyard.core.errors import ServeError
from modelyard.serve.options import ServeOptions
from modelyard.serve.process import LISTEN_FD, spawn

_LOG = logging.getLogger("modelyard.serve")

STABLE_SECONDS = 5.0
"""A worker that dies younger than this counts as a failed start."""
MAX_FAILURES = 5
"""So many failed starts one after the other end the service."""


def supervise(options: ServeOptions, file: Path, listening: socket.socket) -> None:
    """Runs `options.workers` workers until SIGTERM or SIGINT, then ends them gently.

    All accept from the same socket, so that the connections waiting at one that dies are taken by the
    others. Raises `ServeError` when workers keep dying as they start.
    """
    stopping: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda caught, _: stopping.append(caught))
    # Children's deaths interrupt the waiting below.
    signal.signal(signal.SIGCHLD, lambda caught, _: None)
    born: dict[int, float] = {}
    failures = 0
    try:
        while not stopping:
            while len(born) < options.workers:
                pid = _start(options, file, listening)
                born[pid] = time.monotonic()
                _LOG.info("worker %d started", pid)
            time.sleep(0.05)
            for pid in _ended(born):
                age = time.monotonic() - born.pop(pid)
                failures = failures + 1 if age < STABLE_SECONDS else 0
                _LOG.error("worker %d ended after %.1f s and is replaced", pid, age)
            if failures >= MAX_FAILURES:
                raise ServeError("the workers end as they start", value=failures, fix="read the log above")
    finally:
        _end_all(list(born), options.drain + 5.0)


def _start(options: ServeOptions, file: Path, listening: socket.socket) -> int:
    command = ["-m", "modelyard.serve.worker", str(file), "--fd", str(LISTEN_FD), "--alone"]
    return spawn(command, listening=listening, log=options.state / "service.log", session=False)


def _ended(born: dict[int, float]) -> list[int]:
    return [pid for pid in born if os.waitpid(pid, os.WNOHANG)[0] == pid]


def _end_all(pids: list[int], wait: float) -> None:
    for pid in pids:
        _kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + wait
    left = set(pids)
    while left and time.monotonic() < deadline:
        left -= {pid for pid in left if os.waitpid(pid, os.WNOHANG)[0] == pid}
        time.sleep(0.02)
    for pid in left:
        _kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _kill(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return
