"""Workers that end: who is started again, how often, and when the service gives up. Real, small processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from modelyard.core.poll import until

# A worker without a service: it says that it answers unless its slot is one that must not, and waits.
WORKER = """
import os, signal, socket, sys
def say(*words): os.write(1, " ".join(map(str, words)).encode() + b"\\n")  # a line is one write
link = socket.socket(fileno=int(sys.argv[sys.argv.index("--link") + 1]))
slot = sys.argv[sys.argv.index("--slot") + 1]
say("began", slot, os.getpid())
if slot in {failing!r}:
    sys.exit(3)
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
link.send(b"1")
say("answers", slot)
link.recv(1)
say("left alone", slot)
"""
WATCHER = """
import sys
from pathlib import Path
from modelyard.serve.options import ServeOptions
from modelyard.serve.process import bind
from modelyard.serve.supervisor import Supervisor
folder = Path(sys.argv[1])
options = ServeOptions(state=folder, root=folder, endpoints=("m",), workers=2, port=0, drain=1)
Supervisor(options, folder / "options", bind("127.0.0.1", 0, 8), worker=("-c", sys.argv[2])).run()
"""


class Watched:
    """A supervisor in a process of its own, and what its workers wrote."""

    def __init__(self, folder: Path, failing: str) -> None:
        self._log = folder / "service.log"
        self._log.touch()
        self.process = subprocess.Popen(
            [sys.executable, "-c", WATCHER, str(folder), WORKER.format(failing=failing)],
            stderr=subprocess.PIPE,
            text=True,
        )

    def lines(self, begin: str) -> list[list[str]]:
        return [line.split() for line in self._log.read_text().splitlines() if line.startswith(begin)]

    def pids(self, slot: str) -> list[int]:
        return [int(pid) for _, of, pid in self.lines("began") if of == slot]


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Callable[[str], Watched]]:
    made: list[Watched] = []

    def begin(failing: str = "") -> Watched:
        made.append(Watched(tmp_path, failing))
        return made[-1]

    yield begin
    for item in made:
        item.process.kill()
        item.process.communicate()


def test_where_none_can_start_the_service_ends(watched: Callable[[str], Watched]) -> None:
    made = watched("01")
    _, said = made.process.communicate(timeout=60)
    assert made.process.returncode != 0
    assert "the workers end as they start" in said
    assert 5 <= len(made.lines("began")) <= 8


def test_one_that_cannot_start_does_not_end_the_other(watched: Callable[[str], Watched]) -> None:
    made = watched("1")
    assert until(lambda: len(made.pids("1")) > 6, 60)
    assert made.process.poll() is None
    assert len(made.pids("0")) == 1


def test_one_that_is_killed_is_replaced_however_often(watched: Callable[[str], Watched]) -> None:
    made = watched("")
    assert until(lambda: len(made.lines("began")) == 2)
    for count in range(2, 9):
        assert until(lambda count=count: len(made.lines("answers 1")) == count - 1)
        os.kill(made.pids("1")[-1], signal.SIGKILL)
        assert until(lambda count=count: len(made.pids("1")) == count)
    assert made.process.poll() is None
    assert len(made.pids("0")) == 1


def test_on_sigterm_all_are_ended(watched: Callable[[str], Watched]) -> None:
    made = watched("")
    assert until(lambda: len(made.lines("answers")) == 2)
    pids = made.pids("0") + made.pids("1")
    made.process.terminate()
    made.process.communicate(timeout=20)
    assert made.process.returncode == 0
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_without_their_supervisor_workers_know_it(watched: Callable[[str], Watched]) -> None:
    made = watched("")
    assert until(lambda: len(made.lines("answers")) == 2)
    made.process.kill()
    assert until(lambda: sorted(slot for _, _, slot in made.lines("left")) == ["0", "1"])
