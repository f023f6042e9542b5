"""The bar: what is asked, what was measured, whether it holds."""

from __future__ import annotations

import json
import math
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Measured = Mapping[str, Any]


@dataclass(frozen=True)
class Line:
    """One line. `holds` is `None` where it was not measured; without a `target` it is only for comparison."""

    what: str
    target: str
    measured: str
    holds: bool | None = None

    def __str__(self) -> str:
        mark = {True: "holds", False: "FAILS", None: "not measured" if self.target else ""}[self.holds]
        return f"{self.what:<46} {self.target:>10}  {mark:<12}  {self.measured}".rstrip()


@dataclass
class Bar:
    """Collects the lines in order."""

    lines: list[Line] = field(default_factory=list)

    def least(self, what: str, target: float, value: float | None, unit: str = "", note: str = "") -> None:
        """At least `target`; `None` was not measured, and `note` says why."""
        self._add(what, f">= {target:g}{unit}", value, None if value is None else value >= target, unit, note)

    def most(self, what: str, target: float, value: float | None, unit: str = "", note: str = "") -> None:
        """At most `target`."""
        self._add(what, f"<= {target:g}{unit}", value, None if value is None else value <= target, unit, note)

    def beside(self, what: str, measured: str) -> None:
        """A line for comparison."""
        self.lines.append(Line(what, "", measured))

    def _add(self, what: str, target: str, value: float | None, holds: bool | None, unit: str,
             note: str) -> None:  # fmt: skip
        shown = (
            note
            if value is None or math.isinf(value)
            else f"{value:.3g}{unit}" + (f" ({note})" if note else "")
        )
        self.lines.append(Line(what, target, shown, holds))


def script(path: Path, *arguments: str, timeout: float = 600.0) -> Measured | str:
    """The JSON that another benchmark prints, alone or as its last line; a sentence when there is none."""
    if not path.exists():
        return f"there is no {path.name}"
    try:
        ended = subprocess.run([sys.executable, str(path), *arguments], capture_output=True, text=True,
                               check=True, timeout=timeout)  # fmt: skip
        text = ended.stdout.strip()
        found = json.loads(text if text.startswith("{") else text.splitlines()[-1])
    except subprocess.CalledProcessError as error:
        words = [line for line in error.stderr.splitlines() if line.strip()] or [f"exit {error.returncode}"]
        return f"{path.name} fails: {words[-1][:120]}"
    except subprocess.TimeoutExpired:
        return f"{path.name} takes over {timeout:.0f} s"
    except (ValueError, IndexError):
        return f"{path.name} prints no JSON"
    return found if isinstance(found, dict) else f"{path.name} prints no JSON object"


def number(found: Measured | str, *names: str) -> tuple[float | None, str]:
    """The first of the keys that is there as a number; why there is none otherwise."""
    if isinstance(found, str):
        return None, found
    for name in names:
        value = found.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return float(value), ""
    return None, f"no {' or '.join(names)} in what was printed"


def rows_of(results: Mapping[tuple[str, str, int], Sequence[Mapping[str, float]]]) -> list[dict[str, Any]]:
    """Medians of the rounds, by body, server and connections."""
    ordered = sorted(results.items(), key=lambda item: (item[0][0], item[0][2]))
    return [
        {"body": body, "server": server, "c": connections, "rounds": len(runs)}
        | {key: round(statistics.median(run[key] for run in runs), 3) for key in runs[0]}
        for (body, server, connections), runs in ordered
    ]
