"""What one run of the benchmark has made and found: servers, and the figures of each of their runs."""

from __future__ import annotations

import statistics
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from serve.ask import Ask
from serve.server import Failed, Server

OURS, CEILING, BARE, SILENT, DOOR = "modelyard", "constant", "bare", "no-log", "our-door"
"""`constant` answers from bare Granian, `our-door` from our HTTP door with nothing behind it."""

Runs = dict[tuple[str, str, int], list[dict[str, float]]]


@dataclass
class Bench:
    """What one run of the benchmark has made and found."""

    folder: Path
    seconds: int
    rounds: int
    files: dict[str, Path] = field(default_factory=dict)
    known: dict[tuple[str, str], Ask] = field(default_factory=dict)
    yard: Any = None
    running: list[Server] = field(default_factory=list)
    runs: Runs = field(default_factory=dict)
    starts: dict[str, float] = field(default_factory=dict)
    memory: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def note(self, text: object) -> None:
        """Something that the reader must know, said at once and under the tables."""
        self.notes.append(str(text))
        print(text, file=sys.stderr)

    def run(self, server: Server, model: str, form: str, connections: int, seconds: int | None = None,
            name: str = "") -> None:  # fmt: skip
        """One run of wrk, kept under the server's name or another; errors are noted."""
        path = server.form.path.format(model=model)
        try:
            found = server.load(self.known[model, form].script, path, connections, seconds or self.seconds)
        except (Failed, subprocess.SubprocessError) as error:
            self.note(error)
            return
        if found.pop("broken"):
            self.note(f"{server.name} {path} c={connections}: connections broke")
        self.runs.setdefault((f"{model}-{form}", name or server.name, connections), []).append(found)

    def ratio(self, body: str, connections: int, left: str, right: str, key: str = "rps") -> float | None:
        """Median over the rounds of the left server's figure over the right's."""
        ours, theirs = (self.runs.get((body, name, connections), []) for name in (left, right))
        pairs = [one[key] / other[key] for one, other in zip(ours, theirs, strict=False) if other[key]]
        return statistics.median(pairs) if pairs else None

    def over(self, name: str, model: str, body: str) -> float | None:
        """Requests a second of ours over another's, each in the body it is asked with, c=64."""
        alone = self.runs.get((f"{model}-json", beside(name), 64))
        ours = alone or self.runs.get((f"{model}-json", OURS, 64), [])
        pairs = zip(ours, self.runs.get((body, name, 64), []), strict=False)
        found = [one["rps"] / other["rps"] for one, other in pairs]
        return statistics.median(found) if found else None

    def figure(self, body: str, connections: int, server: str, key: str) -> float:
        """Median over the rounds of one figure, NaN where there is none."""
        found = self.runs.get((body, server, connections), [])
        return statistics.median(run[key] for run in found) if found else float("nan")

    def of(self, name: str) -> Server:
        return next(server for server in self.running if server.name == name)


def beside(name: str) -> str:
    """Ours, measured in turn with one peer."""
    return f"{OURS} beside {name}"
