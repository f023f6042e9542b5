"""A second release against the first, traffic turned by hand and by evidence, bundles that were touched."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

pytestmark = pytest.mark.timeout(600)  # whole runs of the loop, on a machine that others use too


@pytest.fixture(scope="module")
def twice(released: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The small project after a second release, of another model."""
    yard = released.copy(tmp_path_factory.mktemp("twice") / "small")
    yard.change("recipe.py", "C=1.0", "C=0.5")
    done = yard("run", "--no-serve", "--json")
    assert done.code == 0, done.out + done.err
    yield yard


@pytest.fixture
def second(twice: Any, tmp_path: Path) -> Iterator[Any]:
    yard = twice.copy(tmp_path / "small")
    yield yard
    yard("serve", "stop")


def ask(url: str, row: dict[str, Any], *, key: str = "", endpoint: str = "small") -> dict[str, Any]:
    body: dict[str, Any] = {"rows": [row]} | ({"id": key} if key else {})
    answer = httpx.post(f"{url}/predict/{endpoint}", json=body, timeout=10)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    found["version"] = int(found["version"])
    return found


ROW = {"a": 0.3, "b": 0.4}


def served(yard: Any) -> list[int]:
    """The versions that the endpoint's policy names, the champion first."""
    policy = yard("endpoint", "show", "--json").json["policy"]
    known = {row["digest"]: row["version"] for row in yard("releases", "--json").json}
    return [known[policy[name]] for name in ("release", "champion", "candidate") if name in policy]


def test_a_second_model_is_canaried_against_the_champion_and_promoted(twice: Any) -> None:
    found = twice("releases", "--json").json
    assert [row["version"] for row in found] == [1, 2]
    assert found[0]["lineage"]["model"] != found[1]["lineage"]["model"]
    assert [row["endpoint"] for row in found] == [None, "small"]
    history = twice("endpoint", "show", "--json").json["history"]
    assert [row["claim"] for row in history] == ["endpoint.set", "endpoint.set", "endpoint.promote"]
    assert history[1]["policy"]["kind"] == "canary"
    canary = twice("ledger", "show", "--claim", "infra.6", "--json").json
    assert canary[0]["passed"] is True
    assert canary[0]["subject"] == found[1]["digest"]
    people = twice("endpoint", "show").out
    assert "small: single · small 2" in people
    assert "promote" in people
    assert "2 signatures verified" in twice("releases", "--verify").out


def test_traffic_by_hand_reaches_the_running_service(second: Any, until: Any) -> None:
    service = second("serve", "--json").json
    url = service["url"]
    assert ask(url, ROW)["version"] == 2

    done = second("endpoint", "rollback", "--why", "a drill", "--json")
    assert done.code == 0, done.err
    until(lambda: ask(url, ROW)["version"] == 1, 5, "the rollback")
    assert served(second) == [1]

    assert second("endpoint", "set", "2", "--canary", "0.5").code == 0
    assert served(second) == [1, 2]
    until(lambda: {ask(url, ROW, key=f"k{n}")["version"] for n in range(40)} == {1, 2}, 5, "the canary")
    # Sticky: one key stays on one side.
    sides = {n: ask(url, ROW, key=f"k{n}")["version"] for n in range(20)}
    assert all(ask(url, ROW, key=f"k{n}")["version"] == side for n, side in sides.items())

    assert second("endpoint", "set", "2", "--shadow").code == 0
    until(lambda: {ask(url, ROW, key=f"k{n}")["version"] for n in range(40)} == {1}, 5, "the shadow")

    # All of the traffic only by a canary that passed: a shadow is no evidence.
    done = second("endpoint", "set", "2")
    assert done.code == 10, done.out
    assert "canary" in done.error()
    assert served(second) == [1, 2]
    assert second("serve", "status", "--json").json["pid"] == service["pid"], "one process all along"
    assert second("ledger", "verify").code == 0


def test_what_the_endpoint_refuses(second: Any) -> None:
    for words, code, part in [
        (("set", "9"), 9, "9"),
        (("set", "one"), 2, "not a valid integer"),
        (("set", "1", "--canary", "2"), 2, "--canary"),
        (("set", "1", "--canary", "0.5", "--shadow"), 9, "either a canary or a shadow"),
        (("promote",), 9, ""),
    ]:
        done = second("endpoint", *words)
        error = done.error()
        assert done.code in (code, 10), (words, done.code, error)
        assert part in error
    assert served(second) == [2]


def test_a_failed_verdict_never_ends_in_a_promotion(second: Any) -> None:
    """The candidate's canary is set by hand; without a canary that passed since, promotion is refused."""
    second("endpoint", "rollback")
    assert second("endpoint", "set", "2", "--canary", "0.5").code == 0
    done = second("endpoint", "promote")
    assert done.code == 10, done.out + done.err
    done.error()
    assert served(second) == [1, 2]


def flip(yard: Any, digest: str) -> None:
    """Changes one byte of an object, wherever the store keeps it."""
    name = digest.removeprefix("sha256:")
    found = [path for path in (yard.root / ".modelyard" / "objects").rglob("*")
             if path.is_file() and str(path).replace("/", "").endswith(name)]  # fmt: skip
    assert len(found) == 1, found
    data = bytearray(found[0].read_bytes())
    data[len(data) // 2] ^= 1
    found[0].chmod(0o644)
    found[0].write_bytes(bytes(data))


def test_a_tampered_bundle_is_refused_and_the_old_release_keeps_serving(second: Any, until: Any) -> None:
    assert second("endpoint", "rollback").code == 0
    url = second("serve", "--json").json["url"]
    until(lambda: ask(url, ROW)["version"] == 1, 5, "the first release")
    model = second("releases", "--json").json[1]["lineage"]["model"]
    flip(second, model)

    done = second("releases", "--verify")
    assert done.code in (8, 9), done.out
    assert re.search("model|object|differ|tamper|digest", done.error())

    # Whatever is put before traffic now, no client gets an error, and release 1 goes on answering.
    second("endpoint", "set", "2", "--canary", "0.5")
    assert all(ask(url, ROW, key=f"k{n}")["version"] in (1, 2) for n in range(40))
    second("endpoint", "rollback")
    until(lambda: {ask(url, ROW, key=f"k{n}")["version"] for n in range(20)} == {1}, 5, "the first release")

    done = second("export", "onnx", "-o", str(second.root / "out"), "--version", "2")
    assert done.code in (8, 9)
    done.error()
    # The loop compares a candidate with the champion, and will not compare with a forged one.
    flip(second, second("releases", "--json").json[0]["lineage"]["model"])
    second.change("recipe.py", "C=0.5", "C=0.1")
    done = second("run", "--no-serve")
    assert done.code in (8, 9), done.out + done.err
    done.error()
    assert len(second("releases", "--json").json) == 2


def test_the_report_is_one_file_that_loads_nothing(second: Any, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    assert second("report", "-o", str(page), "--json").json == {"report": str(page)}
    text = page.read_text()
    assert text.lstrip().lower().startswith("<!doctype html")
    for attribute in ("src", "href", "data", "action", "poster", "srcset"):
        for found in re.findall(rf"\b{attribute}\s*=\s*[\"']([^\"']*)", text):
            assert not re.match(r"(https?:)?//", found), found
    assert not re.search(r"url\(\s*[\"']?(?!data:|#)", text)
    assert "@import" not in text
    assert "<script src" not in text
    for word in ("small", "accuracy", "canary"):
        assert word in text
    assert "<svg" in text or "data:image" in text


def test_score_lists_every_test_with_evidence_or_a_command(second: Any) -> None:
    found = second("score", "--json").json
    lines = found["lines"]
    assert len(lines) == 28
    assert all(line["entry"] is not None if line["points"] else line["command"] for line in lines)
    before = {line["test"]: line["points"] for line in lines}
    assert before["infra.6"] == 1.0
    assert before["infra.4"] == 1.0
    free = next(test for test, points in before.items() if points == 0)
    done = second("score", "note", free, "--link", "https://wiki.example/1", "--author", "Ada", "--json")
    assert done.code == 0, done.err
    after = {line["test"]: line["points"] for line in second("score", "--json").json["lines"]}
    assert after == {**before, free: 0.5}
    assert "did you mean" in second("score", "note", "dta.3", "--link", "x", "--author", "y").error()
    assert "of 7" in second("score").out
    # A note is evidence about one release: it does not follow the traffic to another.
    second("endpoint", "rollback")
    assert {row["test"]: row["points"] for row in second("score", "--json").json["lines"]}[free] == 0


def test_taking_an_entry_of_a_real_ledger_away_never_raises_and_often_lowers_the_score(second: Any) -> None:
    from modelyard.core.clock import from_iso
    from modelyard.score.lineage import Lineage
    from modelyard.score.score import score
    from modelyard.store.store import open_store

    release = second("releases", "--json").json[1]
    subjects = frozenset({"project:small", "endpoint:small", release["digest"], *release["lineage"].values()})
    store = open_store(second.root / ".modelyard")
    entries = store.ledger.entries()
    store.close()
    now = from_iso(entries[-1].time) + 1
    lineage = Lineage(subjects)
    whole = score(entries, lineage, now)
    points = {line.test: line.points for line in whole.lines}
    scoring = {line.entry: line.test for line in whole.lines if line.points}
    assert len(scoring) >= 5
    lowered = set()
    for place, entry in enumerate(entries):
        rest = score(entries[:place] + entries[place + 1 :], lineage, now)
        after = {line.test: line.points for line in rest.lines}
        if entry.passed is not False:
            assert all(after[test] <= points[test] for test in points), entry.claim
        lowered |= {test for test in points if after[test] < points[test]}
    # Where older evidence of the same subject stands behind the newest, the point rightly stays.
    again = set()
    for index, test in scoring.items():
        claim = next(entry.claim for entry in entries if entry.index == index)
        same = [item for item in entries if item.claim == claim and item.passed and item.subject in subjects]
        again |= {test} if len(same) > 1 else set()
    assert set(scoring.values()) - again <= lowered
    assert lowered


def test_export_is_proved_where_it_goes(second: Any, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    found = second("export", "onnx", "-o", str(folder), "--json").json
    assert found["release"] == "small 2"
    assert found["largest_difference"] < 1e-3
    assert list(folder.rglob("*.onnx"))
    assert second("export", "onnx", "-o", str(tmp_path / "one"), "--version", "1").code == 0
    error = second("export", "onxn", "-o", str(folder)).error()
    assert "did you mean 'onnx'?" in error
