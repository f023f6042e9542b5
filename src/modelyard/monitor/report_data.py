"""What a report shows: plain values that any caller can fill in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from modelyard.measure.measurement import Measurement, Verdict
from modelyard.monitor.window_report import WindowReport

if TYPE_CHECKING:
    from modelyard.data.profile import Profile
    from modelyard.store.ledger import Entry


@dataclass(frozen=True, slots=True)
class ScoreRow:
    """One line of the ML Test Score: its points, its evidence, or what is missing and the command."""

    test: str
    section: str
    title: str
    points: float
    evidence: str = ""
    missing: str = ""
    command: str = ""


@dataclass(frozen=True, slots=True)
class ReportData:
    """All that the page shows; what is empty is said to be empty, never left out in silence.

    `generated` and `created` are RFC 3339 texts, `latencies` seconds of the window's requests, `reference`
    and `window` the profiles that the drift plots compare, `entries` the tail of the ledger, newest first.
    """

    project: str
    generated: str
    release: str = ""
    version: str = ""
    digest: str = ""
    created: str = ""
    endpoint: str = ""
    task: str = ""
    facts: tuple[tuple[str, str], ...] = ()
    """Further lines for the header: (label, text)."""
    requirements: tuple[Verdict, ...] = ()
    score: float | None = None
    band: str = ""
    sections: tuple[tuple[str, float], ...] = ()
    lines: tuple[ScoreRow, ...] = ()
    quality: tuple[Measurement, ...] = ()
    slices: tuple[Verdict, ...] = ()
    compression: tuple[Verdict, ...] = ()
    canary: tuple[Verdict, ...] = ()
    windows: tuple[WindowReport, ...] = ()
    reference: Profile | None = None
    window: Profile | None = None
    latencies: tuple[float, ...] = ()
    latency_bound: float | None = None
    entries: tuple[Entry, ...] = ()
