"""What was measured, kept by the kind of machine, so that the next tuning does not begin from nothing."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelyard.compress.tuner.space import Setting
from modelyard.core.errors import StoreError
from modelyard.core.files import file_lock

VERSION = 1
"""Of a line. Raised when an old line would be read differently; lines of other versions are passed over."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One measured setting: its speed-up over the default (interval included), or why there is none.

    `workload` describes what was run in numbers (a cost model learns across workloads), `task` names it.
    """

    task: str
    workload: Mapping[str, float]
    setting: Setting
    speedup: float
    low: float
    high: float
    error: str = ""

    @property
    def cost(self) -> float:
        """Log seconds against the default."""
        return -math.log(self.speedup)

    def to_json(self) -> dict[str, Any]:
        known = not self.error
        return {
            "version": VERSION,
            "task": self.task,
            "workload": dict(self.workload),
            "setting": dict(self.setting),
            "speedup": self.speedup if known else None,
            "low": self.low if known else None,
            "high": self.high if known else None,
            "error": self.error,
        }

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> Trial:
        error = str(value["error"])
        speedup, low, high = (math.nan if error else float(value[key]) for key in ("speedup", "low", "high"))
        if not error and not min(speedup, low, high) > 0:
            raise ValueError("a speed-up is above zero")
        workload = {str(key): float(item) for key, item in value["workload"].items()}
        return Trial(str(value["task"]), workload, dict(value["setting"]), speedup, low, high, error)


class TuningJournal:
    """Trials as JSON lines, one file a kind of machine and space: `FOLDER/FINGERPRINT/SPACE.jsonl`.

    A line is on disk when `add` returns; a line that a dying process left torn, or that is damaged, is passed
    over. Several processes may write.
    """

    def __init__(self, folder: Path, machine: str, space: str) -> None:
        self._path = folder / machine / f"{space}.jsonl"

    @property
    def path(self) -> Path:
        return self._path

    def trials(self) -> list[Trial]:
        """All that can be read, in their order."""
        try:
            lines = self._path.read_text(encoding="utf-8", errors="replace").splitlines()
        except FileNotFoundError:
            return []
        except OSError as error:
            raise StoreError("the tuning journal cannot be read", value=str(self._path)) from error
        found = []
        for line in lines:
            try:
                value = json.loads(line)
                if value["version"] == VERSION:
                    found.append(Trial.from_json(value))
            except (ValueError, KeyError, TypeError, AttributeError):
                continue
        return found

    def add(self, trial: Trial) -> None:
        """Appends a trial; `StoreError` when the disk refuses."""
        line = (json.dumps(trial.to_json(), allow_nan=False) + "\n").encode()
        try:
            with (
                file_lock(self._path.with_suffix(".lock"), what="the tuning journal"),
                self._path.open("ab") as file,
            ):
                if file.tell() and not self._ends_whole():
                    file.write(b"\n")
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise StoreError("the tuning journal cannot be written", value=str(self._path)) from error

    def _ends_whole(self) -> bool:
        with self._path.open("rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read(1) == b"\n"
