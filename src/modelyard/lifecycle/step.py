"""A step of the loop: what it is, what it leaves, and why it has to run again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from modelyard.core.digest import Digest, digest_json
from modelyard.measure.measurement import Verdict

VERSION = 1
"""Of a stored step. Raised when an old record would be read wrongly; an unknown version counts as absent."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a step returns. `values` are small JSON (digests, numbers) that later steps read.

    `verdicts` are pairs of subject and verdict; the loop writes them to the ledger, the step does not.
    """

    values: dict[str, Any]
    headline: str
    verdicts: tuple[tuple[str, Verdict], ...] = ()
    stops: str = ""
    """Why the loop must not go on (a failed gate); empty when it may."""


@dataclass(frozen=True, slots=True)
class StepRecord:
    """A finished step as it is kept: what went in, by part, and what came out."""

    name: str
    parts: Mapping[str, str]
    values: Mapping[str, Any]
    headline: str
    seconds: float
    finished: float
    stops: str = ""
    entries: tuple[int, ...] = field(default=())

    @property
    def digest(self) -> Digest:
        """Of the values: what a later step's key depends on."""
        return digest_json(dict(self.values))

    def to_json(self) -> dict[str, Any]:
        return {
            "version": VERSION,
            "name": self.name,
            "parts": dict(self.parts),
            "values": dict(self.values),
            "headline": self.headline,
            "seconds": self.seconds,
            "finished": self.finished,
            "stops": self.stops,
            "entries": list(self.entries),
        }

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> StepRecord | None:
        """The record, or nothing when it was written by a version that this one cannot read."""
        if value.get("version") != VERSION:
            return None
        return StepRecord(
            name=value["name"],
            parts=value["parts"],
            values=value["values"],
            headline=value["headline"],
            seconds=value["seconds"],
            finished=value["finished"],
            stops=value["stops"],
            entries=tuple(value["entries"]),
        )


def changes(record: StepRecord | None, parts: Mapping[str, str], *, now: float, expires: float) -> list[str]:
    """Why a step must run: the parts of its key that changed, each in a few words. Empty means cached.

    >>> done = StepRecord("train", {"option seed": "a"}, {}, "", 1.0, 0.0)
    >>> changes(done, {"option seed": "b"}, now=1.0, expires=10.0)
    ['option seed changed']
    """
    if record is None:
        return ["it has not run yet"]
    reasons = [f"{key} changed" for key in parts if key in record.parts and parts[key] != record.parts[key]]
    reasons += [f"{key} is new" for key in parts if key not in record.parts]
    reasons += [f"{key} is gone" for key in record.parts if key not in parts]
    if record.stops:
        reasons.append(f"it stopped the loop last time: {record.stops}")
    if now - record.finished > expires:
        reasons.append("its evidence has expired")
    return reasons
