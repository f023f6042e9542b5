"""The HTTP ceiling: the same requests against a constant answer of the same size, on this machine."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace

from modelyard.core.errors import ServeError
from modelyard.core.poll import until
from modelyard.core.require import require
from modelyard.serve.load.target import Target

_START = 20.0


@contextlib.contextmanager
def ceiling(target: Target, *, wait: float = _START) -> Iterator[Target]:
    """The same requests aimed at a constant answer of `target.answer` bytes, while the context lasts.

    The answer comes through the service's own HTTP door. Raises `MissingExtra` without uvloop, `ServeError`
    when the process does not answer within `wait`.
    """
    require("uvloop", extra="serve")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    command = [sys.executable, "-m", "modelyard.serve.load.constant", str(port), str(target.answer)]
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        stdin=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    try:
        _await(process, port, wait)
        yield replace(target, host="127.0.0.1", port=port, secure=False)
    finally:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _await(process: subprocess.Popen[bytes], port: int, wait: float) -> None:
    if not until(lambda: process.poll() is not None or _answers(port), wait) or process.poll() is not None:
        raise ServeError(
            "the constant answer did not start", value=process.poll(), fix="leave it out: --no-ceiling"
        )


def _answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as probe:
            probe.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            return probe.recv(12).startswith(b"HTTP/1.1 200")
    except OSError:
        return False
