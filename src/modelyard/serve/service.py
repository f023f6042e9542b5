"""Starting, finding and stopping the serving process from outside of it."""

from __future__ import annotations

import dataclasses
import http.client
import os
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from modelyard.core.errors import ServeError
from modelyard.core.files import file_lock, write_atomic
from modelyard.core.poll import until
from modelyard.serve.listeners import BACKLOG
from modelyard.serve.options import ServeOptions
from modelyard.serve.process import LISTEN_FD, ProcessFile, bind, end, spawn, start_time
from modelyard.serve.worker_board import ready_workers

_TAIL = 2_000


@dataclass(frozen=True, slots=True)
class Running:
    """A serving process that answers."""

    pid: int
    url: str
    log: Path


def start(options: ServeOptions, *, wait: float = 30.0) -> Running:
    """Starts the service as a process of its own and returns once it is ready to answer.

    The process outlives its starter. A service that already runs on this state folder is returned as it
    is when its options are the same, and replaced when they differ. Raises `ServeError` with the end of
    its log when it exits, or is not ready after `wait` seconds (it is stopped then).
    """
    options = dataclasses.replace(options, state=options.state.absolute(), root=options.root.absolute())
    options.state.mkdir(parents=True, exist_ok=True)
    with file_lock(options.state / "service.lock", wait=wait + 5.0, what="the service"):
        found = ProcessFile.read(_file(options.state))
        if found is not None and found.options == _stored(options):
            _await_ready(found, options, wait)
            return _running(found, options.state)
        if found is not None:
            end(found, wait=options.drain + 5.0)
        return _start(options, wait)


def stop(state: Path, *, wait: float = 30.0) -> bool:
    """Stops the service of a state folder gently; `False` when none was running.

    Answers in work are finished and the prediction log is flushed. What has not ended after `wait`
    seconds is killed.
    """
    found = ProcessFile.read(_file(state))
    if found is not None:
        end(found, wait=wait)
    _file(state).unlink(missing_ok=True)
    return found is not None


def running(state: Path) -> Running | None:
    """The service of a state folder, or `None`; a pid that now belongs to another program is recognised."""
    found = ProcessFile.read(_file(state))
    return None if found is None else _running(found, state)


def _start(options: ServeOptions, wait: float) -> Running:
    stored = options.state / "options.json"
    log = options.state / "service.log"
    listening = bind("127.0.0.1" if options.host == "localhost" else options.host, options.port, BACKLOG)
    with listening:
        host, port = listening.getsockname()[:2]
        write_atomic(stored, msgspec.json.format(msgspec.json.encode(_stored(options))))
        began = log.stat().st_size if log.exists() else 0
        module = "modelyard.serve.worker" if options.workers == 1 else "modelyard.serve.supervisor"
        command = ["-m", module, str(stored), "--fd", str(LISTEN_FD)]
        pid = spawn(command, listening=listening, log=log, session=True)
        url = f"{'http' if options.tls is None else 'https'}://{_reachable(host)}:{port}"
        found = ProcessFile(pid, start_time(pid) or 0, url, _stored(options))
        found.write(_file(options.state))
    try:
        _await_ready(found, options, wait)
    except ServeError as error:
        end(found, wait=5.0)
        _file(options.state).unlink(missing_ok=True)
        raise ServeError(error.what, value=error.value, rule=error.rule, where=str(log),
                         fix="its log ends with: " + _tail(log, began)) from None  # fmt: skip
    return _running(found, options.state)


def _await_ready(found: ProcessFile, options: ServeOptions, wait: float) -> None:
    def ready() -> bool:
        if not found.lives:
            raise ServeError("the service ended as it started")
        report = _report(found.url)
        if report.get("ready") and _all_answer(options):
            return True
        for name, state in report.get("endpoints", {}).items():
            if not state["ready"] and "refused" in state:
                raise ServeError(f"the endpoint {name!r} cannot be served, {state['refused']['why']}")
        return False

    if not until(ready, wait, every=0.01):
        store = _report(found.url).get("store", {}).get("error")
        what = "the service is not ready" + (f", {store}" if store else "")
        raise ServeError(what, value=list(options.endpoints), rule=f"ready within {wait:g} s")


def _all_answer(options: ServeOptions) -> bool:
    """Whether the workers that one cannot choose to ask answer too."""
    return options.workers == 1 or ready_workers(options.state, options.workers) == options.workers


def _report(url: str) -> dict[str, Any]:
    """What the service says of its readiness; nothing while it does not answer."""
    scheme, _, rest = url.partition("://")
    host, _, port = rest.rpartition(":")
    connection: http.client.HTTPConnection
    if scheme == "https":
        # Our own child, found by the port that we bound: its certificate names it for others.
        context = ssl._create_unverified_context()  # noqa: S323
        connection = http.client.HTTPSConnection(host.strip("[]"), int(port), timeout=2.0, context=context)
    else:
        connection = http.client.HTTPConnection(host.strip("[]"), int(port), timeout=2.0)
    try:
        connection.request("GET", "/v2/health/ready", headers={"Connection": "close"})
        report: dict[str, Any] = msgspec.json.decode(connection.getresponse().read())
        return report
    except (OSError, http.client.HTTPException, msgspec.DecodeError):
        return {}
    finally:
        connection.close()


def _reachable(host: str) -> str:
    """An address at which this machine reaches a socket bound to `host`."""
    known = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}  # noqa: S104 - compared, not bound
    return known.get(host, f"[{host}]" if ":" in host else host)


def _file(state: Path) -> Path:
    return state / "service.json"


def _stored(options: ServeOptions) -> dict[str, object]:
    """The options as they come back from the pid file."""
    value: dict[str, object] = msgspec.json.decode(msgspec.json.encode(options.to_json()))
    return value


def _running(found: ProcessFile, state: Path) -> Running:
    return Running(found.pid, found.url, state / "service.log")


def _tail(log: Path, began: int) -> str:
    try:
        with log.open("rb") as file:
            file.seek(max(began, os.fstat(file.fileno()).st_size - _TAIL))
            return file.read().decode(errors="replace").strip() or "(nothing)"
    except OSError as error:
        return str(error)
