"""Processes: found again by pid and start time, started apart from their starter, ended gently or not."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from modelyard.core.errors import ServeError
from modelyard.core.files import write_atomic
from modelyard.core.poll import until

LISTEN_FD = 3
"""The number under which a child finds its listening socket."""

LINK_FD = 4
"""The number under which a worker finds its end of the line to who watches over it."""

ANSWERS, ENDS = b"1", b"0"
"""What a worker says on its link: that it takes connections from now on, and that it takes no more."""

FORMAT = 1
"""Version of the pid file; raise it when an older reader would misread a field."""


@dataclass(frozen=True, slots=True)
class ProcessFile:
    """What `<state>/service.json` says of the serving process.

    `started` is the kernel's start time of the process: together with the pid it names one process for
    as long as the machine is up, so that a pid that was given to another program is recognised.
    """

    pid: int
    started: int
    url: str
    options: dict[str, Any]

    def write(self, path: Path) -> None:
        """Writes the file, whole or not at all."""
        fields = {"pid": self.pid, "started": self.started, "url": self.url, "options": self.options}
        write_atomic(path, msgspec.json.format(msgspec.json.encode({"format": FORMAT, **fields})))

    @staticmethod
    def read(path: Path) -> ProcessFile | None:
        """The file's content if it names a process that lives, else `None`."""
        try:
            value = msgspec.json.decode(path.read_bytes())
            if value["format"] != FORMAT:
                return None
            found = ProcessFile(int(value["pid"]), int(value["started"]), str(value["url"]), value["options"])
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return found if found.lives else None

    @property
    def lives(self) -> bool:
        """Whether this very process is still there."""
        return start_time(self.pid) == self.started


def start_time(pid: int) -> int | None:
    """When the process began, in the kernel's ticks since boot; `None` when it is gone or a corpse."""
    _reap(pid)
    return started_at(pid)


def started_at(pid: int) -> int | None:
    """As `start_time`, and leaves a corpse for its parent to collect."""
    try:
        # The program's name stands in brackets and may hold anything, brackets and spaces too.
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return None
    return None if fields[0] in (b"Z", b"X") else int(fields[19])


def spawn(
    command: Sequence[str],
    *,
    listening: socket.socket,
    log: Path,
    session: bool,
    link: socket.socket | None = None,
) -> int:
    """Starts Python with these arguments and returns its pid; the child finds the socket as `LISTEN_FD`.

    With `session` the child gets a session of its own and outlives its starter and the starter's terminal.
    Its output goes to the end of `log`. It finds `link` as `LINK_FD`.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    actions: list[tuple[Any, ...]] = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, str(log), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644),
        (os.POSIX_SPAWN_DUP2, 1, 2),
        # Onto its own number this clears close-on-exec (POSIX.1-2024).
        (os.POSIX_SPAWN_DUP2, listening.fileno(), LISTEN_FD),
    ]
    arguments = [sys.executable, *command]
    held = None
    if link is not None:
        # Out of the way of the numbers that are given before it.
        held = fcntl.fcntl(link.fileno(), fcntl.F_DUPFD_CLOEXEC, 16)
        actions.append((os.POSIX_SPAWN_DUP2, held, LINK_FD))
    try:
        return os.posix_spawn(sys.executable, arguments, os.environ, file_actions=actions, setsid=session)
    finally:
        if held is not None:
            os.close(held)


def end(found: ProcessFile, *, wait: float) -> None:
    """Ends a process with SIGTERM, and its session with SIGKILL if it is there after `wait` seconds."""
    _signal(found, signal.SIGTERM)
    if not until(lambda: not found.lives, wait):
        try:
            os.killpg(found.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            _signal(found, signal.SIGKILL)
        until(lambda: not found.lives, 5.0)


def bind(host: str, port: int, backlog: int) -> socket.socket:
    """A listening socket that no other process shares; raises `ServeError` when the address is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    # A port in TIME_WAIT may be taken at once; one that somebody listens on may not.
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        listening.bind((host, port))
        listening.listen(backlog)
    except OSError as error:
        listening.close()
        raise ServeError("the address cannot be listened on", value=f"{host}:{port}", rule=error.strerror,
                         fix="stop what uses it, or choose another port") from error  # fmt: skip
    listening.setblocking(False)
    return listening


def _signal(found: ProcessFile, number: signal.Signals) -> None:
    if found.lives:
        try:
            os.kill(found.pid, number)
        except ProcessLookupError:
            return


def _reap(pid: int) -> None:
    """Collects the process if it is a child of ours that ended."""
    try:
        os.waitpid(pid, os.WNOHANG)
    except (ChildProcessError, OSError):
        return
