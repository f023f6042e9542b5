"""The ML Test Score of a release: a pure function of the ledger's entries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from modelyard.core.clock import from_iso
from modelyard.score.lineage import Lineage
from modelyard.score.tests import SECTIONS, TESTS, ScoreTest

if TYPE_CHECKING:
    from modelyard.store.ledger import Entry

_DAY = 86400.0
_BANDS = (
    (0.0, "more of a research project than a productionised system"),
    (1.0, "not totally untested, but consider the possibility of serious holes in reliability"),
    (2.0, "a first pass at basic productionisation, but additional investment may be needed"),
    (3.0, "reasonably tested, but more of the tests and procedures may be automated"),
    (5.0, "strong levels of automated testing and monitoring, appropriate for mission-critical systems"),
)
_TOP = "exceptional levels of automated testing and monitoring"


def band(points: float) -> str:
    """What a final score means, in the paper's words.

    >>> band(0.5)
    'not totally untested, but consider the possibility of serious holes in reliability'
    """
    return next((text for limit, text in _BANDS if points <= limit), _TOP)


@dataclass(frozen=True, slots=True)
class Line:
    """One test's line: its points, and the entry they come from or what is missing and the command for it.

    `entry` is the index in the ledger of the evidence that decided, `why` a sentence about it; `missing` is
    empty for a full point.
    """

    test: str
    section: str
    title: str
    points: float
    entry: int | None
    why: str
    missing: str
    command: str

    def to_json(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class Score:
    """The score: the sum of each section, their minimum as the total, what it means, and all 28 lines."""

    sections: tuple[tuple[str, float], ...]
    total: float
    band: str
    lines: tuple[Line, ...]

    def line(self, test: str) -> Line:
        """The line of a test; `KeyError` when there is none."""
        for line in self.lines:
            if line.test == test:
                return line
        raise KeyError(test)

    def to_json(self) -> dict[str, Any]:
        return {
            "total": self.total,
            "band": self.band,
            "sections": dict(self.sections),
            "lines": [line.to_json() for line in self.lines],
        }


def score(entries: Sequence[Entry], subjects: Lineage, now: float, *, expires: float | None = None) -> Score:
    """The ML Test Score at a time (`now`, seconds since 1970) from the entries of a ledger.

    A test earns 1.0 when the newest entry with its claim about a subject of the lineage passed, is not older
    than its expiry (`expires` seconds for all tests, each test's own days without it) and was produced by a
    command (`by` starts with `modelyard `). Otherwise a signed note (claim `note.<id>`, its body holds
    `link` and `author`) that is not expired earns 0.5. A monitoring test earns its point only from a drill
    (claim `drill.<id>`): a note is no proof that a monitor fires. An entry dated after `now` does not count.
    """
    newest: dict[str, Entry] = {}
    for entry in sorted(entries, key=lambda item: item.index):
        if entry.subject in subjects:
            newest[entry.claim] = entry
    lines = tuple(_line(test, newest, now, expires) for test in TESTS)
    sections = tuple(
        (section, sum(line.points for line in lines if line.section == section)) for section in SECTIONS
    )
    total = min(points for _, points in sections)
    return Score(sections, total, band(total), lines)


def _line(test: ScoreTest, newest: dict[str, Entry], now: float, expires: float | None) -> Line:
    life = test.expires_days * _DAY if expires is None else expires
    entry = newest.get(test.claim)
    lacking = _lacking(test, entry, now, life)
    if entry is not None and not lacking:
        return _made(test, 1.0, entry, str(entry.body.get("why", "passed")), "")
    note = None if test.drilled else newest.get(f"note.{test.id}")
    if note is not None and not _unsigned(note, now, life):
        why = f"noted by {note.body['author']}: {note.body['link']}"
        return _made(test, 0.5, note, why, f"only a note; for the other half: {lacking}")
    return _made(test, 0.0, entry, "", lacking)


def _made(test: ScoreTest, points: float, entry: Entry | None, why: str, missing: str) -> Line:
    index = None if entry is None else entry.index
    return Line(test.id, test.section, test.title, points, index, why, missing, test.command)


def _lacking(test: ScoreTest, entry: Entry | None, now: float, life: float) -> str:
    """Why an entry earns no full point; empty when it does."""
    if entry is None:
        return f"no {'drill' if test.drilled else 'entry'} yet: {test.evidence}"
    if not entry.by.startswith("modelyard "):
        return f"entry {entry.index} was not produced by a modelyard command but by {entry.by!r}"
    if entry.passed is not True:
        return f"entry {entry.index} did not pass: {entry.body.get('why', 'no reason given')}"
    return _dated(entry, now, life)


def _unsigned(note: Entry, now: float, life: float) -> str:
    for key in ("link", "author"):
        text = note.body.get(key)
        if not isinstance(text, str) or not text.strip():
            return f"note {note.index} has no {key}"
    if note.passed is False:
        return f"note {note.index} was taken back"
    return _dated(note, now, life)


def _dated(entry: Entry, now: float, life: float) -> str:
    age = now - from_iso(entry.time)
    if age > life:
        return f"entry {entry.index} expired: it is {age / _DAY:.0f} days old, limit {life / _DAY:.0f}"
    # A minute of grace: two machines' clocks differ.
    return f"entry {entry.index} is dated in the future" if age < -60.0 else ""
