from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.core.clock import iso
from modelyard.core.errors import ModelyardError
from modelyard.score.lineage import Lineage
from modelyard.score.score import Score, band, score
from modelyard.score.tests import SECTIONS, TESTS, score_test
from modelyard.store.entry import Entry

NOW = 2_000_000_000.0
DAY = 86400.0
RELEASE = "sha256:" + "a" * 64
LINEAGE = Lineage(frozenset({RELEASE, "endpoint:pets"}))


def entry(index: int, claim: str, **more: Any) -> Entry:
    facts: dict[str, Any] = {
        "time": iso(NOW - DAY), "subject": RELEASE, "passed": True, "body": {"why": "it held"},
        "by": "modelyard run", **more,
    }  # fmt: skip
    return Entry(index=index, claim=claim, previous="sha256:" + "0" * 64, hash="sha256:" + "1" * 64, **facts)


def note(index: int, test: str, **body: Any) -> Entry:
    return entry(
        index, f"note.{test}", passed=None, by="ada", body={"link": "docs/x.md", "author": "Ada", **body}
    )


FULL = [entry(index, test.claim) for index, test in enumerate(TESTS, 1)]


def judged(entries: list[Entry], now: float = NOW) -> Score:
    return score(entries, LINEAGE, now)


def test_there_are_seven_tests_in_each_of_four_sections() -> None:
    assert len(TESTS) == 28 and len({test.id for test in TESTS}) == 28
    for section in SECTIONS:
        assert [test.id for test in TESTS if test.section == section] == [
            f"{section}.{n}" for n in range(1, 8)
        ]
    assert all(test.command.startswith("modelyard ") and test.evidence and test.title for test in TESTS)


def test_an_empty_ledger_scores_nothing_and_says_what_to_run() -> None:
    result = judged([])
    assert result.total == 0.0 and result.band.startswith("more of a research project")
    assert len(result.lines) == 28
    assert all(
        line.points == 0 and line.missing and line.command and line.entry is None for line in result.lines
    )
    assert result.line("monitoring.2").command == "modelyard run"
    assert "no drill yet" in result.line("monitoring.2").missing


def test_full_evidence_scores_seven() -> None:
    result = judged(FULL)
    assert result.total == 7.0 and dict(result.sections) == dict.fromkeys(SECTIONS, 7.0)
    assert result.band.startswith("exceptional")
    assert [line.entry for line in result.lines] == list(range(1, 29))
    assert not any(line.missing for line in result.lines)


@pytest.mark.parametrize("gone", range(28))
def test_taking_any_entry_away_lowers_the_score(gone: int) -> None:
    result = judged([item for place, item in enumerate(FULL) if place != gone])
    assert result.total == 6.0
    assert result.lines[gone].points == 0.0
    assert sum(points for _, points in result.sections) == 27.0


@given(st.sets(st.integers(0, 27)), st.sets(st.integers(0, 27)))
def test_less_evidence_never_scores_more(some: set[int], gone: set[int]) -> None:
    have = [FULL[place] for place in sorted(some)]
    less = [item for item in have if item.index - 1 not in gone]
    before, after = judged(have), judged(less)
    assert after.total <= before.total
    for one, other in zip(before.lines, after.lines, strict=True):
        assert other.points <= one.points
    assert sum(line.points for line in before.lines) - sum(line.points for line in after.lines) == len(
        some & gone
    )


@pytest.mark.parametrize("place", range(28))
def test_age_takes_a_point_away(place: int) -> None:
    test = TESTS[place]
    late = NOW + test.expires_days * DAY
    line = judged([FULL[place]], late).line(test.id)
    assert line.points == 0.0 and "expired" in line.missing
    assert judged([FULL[place]], late - 2 * DAY).line(test.id).points == 1.0


def test_a_project_may_state_its_own_expiry() -> None:
    assert score(FULL, LINEAGE, NOW, expires=DAY / 2).total == 0.0
    assert score(FULL, LINEAGE, NOW, expires=2 * DAY).total == 7.0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"by": "ada"}, "not produced by a modelyard command"),
        ({"by": "modelyardish run"}, "not produced by a modelyard command"),
        ({"passed": False, "body": {"why": "it broke"}}, "did not pass: it broke"),
        ({"passed": None}, "did not pass"),
        ({"time": iso(NOW + DAY)}, "dated in the future"),
        ({"subject": "sha256:" + "b" * 64}, "no entry yet"),
    ],
)
def test_what_is_no_evidence(change: dict[str, Any], words: str) -> None:
    line = judged([entry(1, "data.1", **change)]).line("data.1")
    assert line.points == 0.0 and words in line.missing


def test_the_newest_entry_decides() -> None:
    passed, failed = entry(1, "data.1"), entry(2, "data.1", passed=False)
    assert judged([failed, passed]).line("data.1").points == 0.0
    assert judged([failed, passed, entry(3, "data.1")]).line("data.1").entry == 3


def test_another_releases_entry_does_not_hide_ours() -> None:
    other = entry(2, "data.1", subject="sha256:" + "b" * 64, passed=False)
    assert judged([entry(1, "data.1"), other]).line("data.1").points == 1.0


def test_a_signed_note_is_half_a_point_and_a_command_the_whole() -> None:
    line = judged([note(1, "data.5")]).line("data.5")
    assert line.points == 0.5 and "Ada" in line.why and "docs/x.md" in line.why and line.missing
    assert judged([note(1, "data.5"), entry(2, "data.5")]).line("data.5").points == 1.0
    assert judged([note(2, "data.5"), entry(1, "data.5", passed=False)]).line("data.5").points == 0.5


@pytest.mark.parametrize("body", [{"link": ""}, {"author": " "}, {"link": None}, {"author": 3}])
def test_a_note_without_link_or_author_is_nothing(body: dict[str, Any]) -> None:
    assert judged([note(1, "data.5", **body)]).line("data.5").points == 0.0


def test_a_monitor_counts_only_through_its_drill() -> None:
    assert judged([entry(1, "monitoring.2")]).line("monitoring.2").points == 0.0
    assert judged([note(1, "monitoring.2")]).line("monitoring.2").points == 0.0
    assert judged([entry(1, "drill.monitoring.2", by="modelyard drill")]).line("monitoring.2").points == 1.0


@pytest.mark.parametrize(
    ("points", "words"),
    [(0, "research"), (0.5, "serious holes"), (1, "serious holes"), (1.5, "first pass"), (2.5, "reasonably"),
     (3.5, "strong"), (5, "strong"), (5.5, "exceptional")],
)  # fmt: skip
def test_the_bands_are_the_papers(points: float, words: str) -> None:
    assert words in band(points)


def test_an_unknown_test_is_met_with_the_nearest() -> None:
    with pytest.raises(ModelyardError, match=r"monitoring\.2"):
        score_test("monitorin.2")
