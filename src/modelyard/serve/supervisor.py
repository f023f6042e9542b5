"""Several workers on one address, and a new one in the place of any that dies.

    python -m modelyard.serve.supervisor OPTIONS.json --fd N

as `modelyard.serve.worker` is called. It loads none of what a worker needs.
"""

from __future__ import annotations

import argparse
import logging
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from modelyard.core.errors import ModelyardError, ServeError
from modelyard.core.poll import until
from modelyard.serve.listeners import Listeners
from modelyard.serve.log_lines import write_log_lines
from modelyard.serve.options import ServeOptions
from modelyard.serve.prepare import prepare
from modelyard.serve.process import ANSWERS, LINK_FD, LISTEN_FD, bind, spawn

_LOG = logging.getLogger("modelyard.serve")

MAX_FAILURES = 5
"""So many workers that end before they answer, one after the other, end a service that nobody answers for."""
PAUSE_SECONDS = 0.1
"""Before the second attempt to start a worker; doubled before each further one."""
LONGEST_PAUSE_SECONDS = 10.0


@dataclass(slots=True)
class _Worker:
    pid: int
    born: float
    link: socket.socket
    heard: bool = True
    """Whether its end of the link is open."""
    answers: bool = False
    answered: bool = False
    """Whether it ever did."""


class Supervisor:
    """Keeps one worker in each slot.

    A worker's link tells whether it answers; only those that do get new connections. The link's end tells
    the worker that nobody watches over it any more, and it ends too. `worker` is what Python is called
    with for one.
    """

    def __init__(
        self,
        options: ServeOptions,
        file: Path,
        first: socket.socket,
        *,
        worker: Sequence[str] = ("-m", "modelyard.serve.worker"),
    ) -> None:
        self._options = options
        self._command = [*worker, str(file), "--fd", str(LISTEN_FD), "--link", str(LINK_FD)]
        self._listeners = Listeners(first, options.workers)
        self._workers: dict[int, _Worker] = {}
        self._failures = 0
        self._pause_until = 0.0
        self._held = _hold(options)

    def run(self) -> None:
        """Until SIGTERM or SIGINT; then the workers are ended gently.

        Raises `ServeError` when workers keep dying as they start.
        """
        stopping: list[int] = []
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda caught, _: stopping.append(caught))
        signal.signal(signal.SIGCHLD, lambda caught, _: None)
        woken, wakes = socket.socketpair()
        for end in (woken, wakes):
            end.setblocking(False)
        signal.set_wakeup_fd(wakes.fileno())
        try:
            while not stopping:
                self._fill()
                self._wait(woken)
                self._bury()
        finally:
            # First of all, so that nobody new waits for workers that are ending.
            self._listeners.close()
            self._end(self._options.drain + 5.0)

    def _fill(self) -> None:
        if time.monotonic() < self._pause_until:
            return
        for slot in range(self._options.workers):
            if slot not in self._workers:
                mine, link = socket.socketpair()
                mine.setblocking(False)
                command = [*self._command, "--slot", str(slot)]
                log = self._options.state / "service.log"
                with link:
                    pid = spawn(command, listening=self._listeners[slot], log=log, session=False, link=link)
                self._workers[slot] = _Worker(pid, time.monotonic(), mine)
                _LOG.info("worker %d started", pid)

    def _wait(self, woken: socket.socket) -> None:
        """Sleeps until a signal comes, a worker says something, or a pause is over."""
        poll = select.poll()
        poll.register(woken, select.POLLIN)
        for worker in self._workers.values():
            if worker.heard:
                poll.register(worker.link, select.POLLIN)
        missing = len(self._workers) < self._options.workers
        left = 1_000 * (self._pause_until - time.monotonic())
        ready = {number for number, _ in poll.poll(max(1.0, left) if missing else None)}
        if woken.fileno() in ready:
            woken.recv(4_096)
        for worker in self._workers.values():
            if worker.heard and worker.link.fileno() in ready:
                self._hear(worker)

    def _hear(self, worker: _Worker) -> None:
        try:
            said = worker.link.recv(64)
        except OSError:
            said = b""
        worker.heard = said != b""
        answers = said[-1:] == ANSWERS
        if answers != worker.answers:
            worker.answers = answers
            worker.answered |= answers
            self._steer()
        if worker.answered:
            self._failures = 0

    def _steer(self) -> None:
        answering = [slot for slot, worker in sorted(self._workers.items()) if worker.answers]
        # Where none answers, connections wait at all of them.
        self._listeners.steer(answering or range(self._options.workers))
        if answering and self._held is not None:
            self._held.close()
            self._held = None

    def _bury(self) -> None:
        for slot, worker in list(self._workers.items()):
            if os.waitpid(worker.pid, os.WNOHANG)[0] != worker.pid:
                continue
            age = time.monotonic() - worker.born
            _LOG.error("worker %d ended after %.1f s and is replaced", worker.pid, age)
            del self._workers[slot]
            worker.link.close()
            self._steer()
            if not worker.answered:
                self._failed()

    def _failed(self) -> None:
        self._failures += 1
        if self._failures >= MAX_FAILURES and not any(worker.answers for worker in self._workers.values()):
            raise ServeError("the workers end as they start", value=self._failures, fix="read the log above")
        pause = min(LONGEST_PAUSE_SECONDS, PAUSE_SECONDS * 2.0 ** (self._failures - 1))
        self._pause_until = time.monotonic() + pause

    def _end(self, wait: float) -> None:
        """Ends all workers, those that take longer than `wait` seconds with SIGKILL."""
        left = {worker.pid for worker in self._workers.values()}
        for pid in left:
            os.kill(pid, signal.SIGTERM)

        def ended() -> bool:
            left.difference_update([pid for pid in left if os.waitpid(pid, os.WNOHANG)[0] == pid])
            return not left

        until(ended, wait)
        for pid in left:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def _hold(options: ServeOptions) -> socket.socket | None:
    """Claims gRPC's port until a worker listens on it: they share it, and would with another service."""
    if options.grpc_port is None:
        return None
    host = "127.0.0.1" if options.host == "localhost" else options.host
    held = bind(host, options.grpc_port, 1)
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    return held


def main(arguments: list[str]) -> int:
    """Runs the process; the exit code says how it ended."""
    parser = argparse.ArgumentParser(prog="modelyard.serve.supervisor")
    parser.add_argument("options", type=Path)
    parser.add_argument("--fd", type=int, required=True)
    given = parser.parse_args(arguments)
    write_log_lines()
    try:
        options = ServeOptions.from_json(msgspec.json.decode(given.options.read_bytes()))
        prepare(options)
        Supervisor(options, given.options, socket.socket(fileno=given.fd)).run()
    except ModelyardError as error:
        _LOG.error("%s", error)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
