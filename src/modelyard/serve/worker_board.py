"""`WorkerBoard`: where each worker of a service says what it has counted, so that any of them tells it all.

Each worker has a place of its own, `<state>/workers/<slot>.msgpack`, replaced as a whole. A request costs
nothing for it: a thread writes about twice a second, less often where writing takes long.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import msgspec

from modelyard.serve.metrics import Metrics
from modelyard.serve.process import start_time, started_at

FORMAT = 1
"""Version of a place's content; raise it when an older reader would misread a field."""

SECONDS = 0.5
"""Between two writings, unless one takes more than a hundredth of that."""

_SOON = 0.02
_LOG = logging.getLogger("modelyard.serve")


class Place(msgspec.Struct, frozen=True):
    """What one worker says of itself. With `started` its pid names it for good."""

    format: int
    pid: int
    started: int
    ready: bool
    samples: dict[str, list[tuple[tuple[str, ...], list[float]]]]

    @property
    def lives(self) -> bool:
        """Whether the worker is still there."""
        return started_at(self.pid) == self.started


class Readiness(Protocol):
    """What the board has to know of the worker's health."""

    @property
    def ready(self) -> bool: ...


class WorkerBoard:
    """One worker's view of the board.

    A worker that comes in another's place goes on from what that one had counted, so no counter ever goes
    back. What is told is written first, and for the same reason: whoever is asked next knows of it. Of a
    worker that is killed what it counted after its last writing is lost.
    """

    def __init__(self, state: Path, slot: int, workers: int, metrics: Metrics, health: Readiness) -> None:
        self._folder = board_folder(state)
        self._slot = slot
        self._workers = workers
        self._metrics = metrics
        self._health = health
        self._open = False
        self._started = start_time(os.getpid()) or 0
        before = read_place(state, slot)
        self._before = None if before is None else before.samples
        self._writing = threading.Lock()
        self._stop = threading.Event()
        self._failed = False
        self._thread = threading.Thread(target=self._work, name="worker-board", daemon=True)

    def open(self) -> None:
        """The worker answers from now on."""
        self._open = True
        self.write()
        self._thread.start()

    def close(self) -> None:
        """Writes for the last time: the worker has ended."""
        self._open = False
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        self.write()

    def write(self) -> Metrics:
        """Writes this worker's place; what it says, as metrics. A disk that is full does not stop it."""
        with self._writing:
            own = Metrics()
            if self._before is not None:
                own.join(self._before, gauges=False)
            own.join(self._metrics.samples())
            ready = self._open and self._health.ready
            place = {"format": FORMAT, "pid": os.getpid(), "started": self._started, "ready": ready,
                     "samples": own.samples()}  # fmt: skip
            path = _path(self._folder, self._slot)
            part = path.with_suffix(".part")
            try:
                self._folder.mkdir(parents=True, exist_ok=True)
                # Not synced: it has to outlive this process, not the machine.
                part.write_bytes(msgspec.msgpack.encode(place))
                part.replace(path)
                self._failed = False
            except OSError as error:
                if not self._failed:
                    _LOG.error("other workers do not hear what this one counts: %s", error)
                self._failed = True
            return own

    def text(self) -> bytes:
        """What all workers counted together, in the exposition format."""
        total = self.write()
        for place in self._others():
            total.join(place.samples, gauges=place.lives)
        return total.text()

    def report(self) -> dict[str, Any]:
        """Which worker this is, and how many there are."""
        others = sum(place.ready and place.lives for place in self._others())
        ready = others + (self._open and self._health.ready)
        return {"pid": os.getpid(), "workers": {"wanted": self._workers, "ready": ready}}

    def _others(self) -> Iterator[Place]:
        for slot in range(self._workers):
            if slot != self._slot:
                place = _read(_path(self._folder, slot))
                if place is not None:
                    yield place

    def _work(self) -> None:
        pause = _SOON
        while not self._stop.wait(pause):
            began = time.monotonic()
            try:
                self.write()
            except Exception:  # it must go on whatever one sample brings with it.
                _LOG.exception("what this worker counted could not be written")
            pause = max(SECONDS, 100 * (time.monotonic() - began)) if self._health.ready else _SOON


def board_folder(state: Path) -> Path:
    """Where the workers of a service have their places."""
    return state / "workers"


def read_place(state: Path, slot: int) -> Place | None:
    """What the worker in this slot said last, `None` when there was none or it cannot be read."""
    return _read(_path(board_folder(state), slot))


def ready_workers(state: Path, workers: int) -> int:
    """How many of a service's workers answer."""
    places = (read_place(state, slot) for slot in range(workers))
    return sum(place is not None and place.ready and place.lives for place in places)


def _path(folder: Path, slot: int) -> Path:
    return folder / f"{slot}.msgpack"


def _read(path: Path) -> Place | None:
    try:
        place = msgspec.msgpack.decode(path.read_bytes(), type=Place)
    except (OSError, msgspec.DecodeError):
        return None
    return place if place.format == FORMAT else None
