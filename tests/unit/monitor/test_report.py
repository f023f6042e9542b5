from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import pytest

from modelyard.data.profile import Profile
from modelyard.measure.measurement import Measurement, Verdict
from modelyard.measure.requirement import Requirement
from modelyard.monitor.alarm import Alarm
from modelyard.monitor.drift import window_profile
from modelyard.monitor.report import render_report
from modelyard.monitor.report_data import ReportData, ScoreRow
from modelyard.monitor.rows import inputs
from modelyard.monitor.window import judge_window
from modelyard.store.ledger import Entry

HOSTILE = (
    "<script>alert('x')</script><img src=x onerror=alert(1)>"
    '" onmouseover="alert(2)" $\\frac{1}{0}$ &amp; \x00 猫'
)


class Reader(HTMLParser):
    """What a browser would find: tags, attributes, text, and whether every tag is closed."""

    void = frozenset({"meta", "br", "img", "link", "input", "path", "use"})

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.void:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.void:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def read(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    reader.close()
    assert reader.open == []
    return reader


def full(world: Any, reference: Profile, word: str = "plain") -> ReportData:
    log = world.log(400, 4, bright=0.3, colour=[0.2, 0.3, 0.5])
    needs = [Requirement("latency_p99", 0.02, "at_most")]
    report = judge_window(log, None, reference, world.contract, needs)
    bad = Verdict("c" + word, False, word, (Measurement(word, 0.5, 0.4, 0.6, of=word),), 0.3)
    alarm = Alarm("drift", word, word, word, bad)
    features, _ = inputs(log, world.contract)
    window = window_profile(log, features, world.contract)
    colour = replace(window.columns["colour"], counts={word: 400})
    columns = {**window.columns, "colour": colour}
    return ReportData(
        project=word, generated="2026-01-01T00:00:00Z", release=word, version=word,
        digest="sha256:" + "a" * 64, created=word, endpoint=word, task="classification",
        facts=((word, word),),
        requirements=(bad,), score=1.5, band=word, sections=(("data", 1.5),),
        lines=(ScoreRow("data.1", "data", word, 0.5, word, word, word),), quality=bad.measurements,
        slices=(bad,), compression=(bad,), canary=(bad,), reference=reference,
        windows=(replace(report, alarms=(*report.alarms, alarm)),),
        window=replace(window, columns=columns), latencies=tuple(log["latency"].to_pylist()),
        latency_bound=0.02,
        entries=(Entry(3, word, word, word, None, {}, word, "sha256:" + "0" * 64, "sha256:" + "1" * 64),),
    )  # fmt: skip


@pytest.fixture(scope="module")
def hostile(world: Any, reference: Profile) -> str:
    return render_report(full(world, reference, HOSTILE))


@pytest.fixture(scope="module")
def page(world: Any, reference: Profile) -> str:
    return render_report(full(world, reference))


def test_hostile_text_stays_text(hostile: str) -> None:
    reader = read(hostile)
    assert not {tag for tag, _ in reader.tags} & {
        "script",
        "img",
        "iframe",
        "link",
        "object",
        "foreignobject",
    }
    assert not [key for _, given in reader.tags for key in given if key.startswith("on")]
    assert "alert('x')" in "".join(reader.words)
    assert "\x00" not in hostile


def test_the_page_needs_nothing_from_outside(hostile: str) -> None:
    for tag, given in read(hostile).tags:
        for key in ("src", "href", "action", "data"):
            assert (given.get(key) or "#").startswith("#"), (tag, given)
    assert "@import" not in hostile
    assert not re.search(r"url\((?!#)", hostile)
    assert "http://" not in hostile and "https://" not in hostile


def test_every_plot_has_a_text_and_ids_are_unique(page: str) -> None:
    reader = read(page)
    plots = [given for tag, given in reader.tags if tag == "svg"]
    assert len(plots) >= 8
    assert all(given.get("role") == "img" and given.get("aria-label") for given in plots)
    ids = [given["id"] for _, given in reader.tags if "id" in given]
    assert len(ids) == len(set(ids))
    targets = {given["href"][1:] for _, given in reader.tags if (given.get("href") or "").startswith("#")}
    assert targets <= set(ids)
    assert "photo.mean: reference mean 0.5, window mean 0.15" in page


def test_colours_come_from_the_page_so_that_dark_works(page: str) -> None:
    assert "prefers-color-scheme: dark" in page
    svg = "".join(re.findall(r"<svg.*?</svg>", page, re.DOTALL))
    assert "var(--win)" in svg
    assert "#10a1b" not in page
    assert not re.findall(r"(?:fill|stroke): #(?!ffffff)[0-9a-f]{6}", svg)


def test_the_same_data_gives_the_same_bytes(world: Any, reference: Profile, page: str) -> None:
    assert render_report(full(world, reference)) == page


def test_an_empty_report_says_what_there_is_not() -> None:
    words = " ".join(read(render_report(ReportData("p", "now"))).words)
    for sentence in ("No live traffic has been judged yet", "states no requirement", "run modelyard score",
                     "No quality was measured", "No window has been profiled", "No request was timed",
                     "No compression verdict", "No canary verdict", "The ledger is empty"):  # fmt: skip
        assert sentence in words


def test_values_that_are_no_numbers_are_drawn_around(world: Any, reference: Profile) -> None:
    nan = Measurement("accuracy", float("nan"), method="one class only")
    page = render_report(
        ReportData(
            "p",
            "now",
            quality=(nan,),
            slices=(Verdict("s", False, "why", (nan,)),),
            latencies=(float("nan"),),
        )
    )
    assert "not measured" in page
