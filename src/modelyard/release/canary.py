"""The canary's judge: promote, roll back or go on, valid at every look."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from modelyard.core.digest import Digest
from modelyard.measure.measurement import Verdict

CANARY = "release.canary"
"""The claim of the verdict that promotion asks for."""


@dataclass(frozen=True, slots=True)
class Arm:
    """What one release did in the trial, as counts since it began."""

    requests: int = 0
    errors: int = 0
    timed: int = 0
    slow: int = 0
    compared: int = 0
    disagreements: int = 0
    labelled: int = 0
    misses: int = 0


@dataclass(frozen=True, slots=True)
class Trial:
    """Which trial is judged: the endpoint and its two releases, and how long it has run (seconds)."""

    endpoint: str
    champion: Digest
    candidate: Digest
    elapsed: float


@dataclass(frozen=True, slots=True)
class CanaryOptions:
    """Margins: how much worse a rate of the candidate may be than the champion's (0.01 is one in a hundred)."""

    error_margin: float = 0.01
    slow_margin: float = 0.05
    quality_margin: float = 0.05
    disagreement_margin: float = 0.01
    needed: tuple[str, ...] = ("errors", "latency", "quality")
    minimum: int = 100
    alpha: float = 0.05
    timeout: float = 86_400.0


@dataclass(frozen=True, slots=True)
class Decision:
    """What follows, and the verdict to append to the ledger under the candidate's digest."""

    action: Literal["continue", "promote", "rollback"]
    verdict: Verdict


def judge_canary(trial: Trial, champion: Arm, candidate: Arm, options: CanaryOptions) -> Decision:
    """Judges the counts so far; pure."""
    raise NotImplementedError
