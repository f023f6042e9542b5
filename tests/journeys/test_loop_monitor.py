"""Live traffic watched: windows that close, drifted traffic that alarms, a canary decided by feedback."""

from __future__ import annotations

import random
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

pytestmark = pytest.mark.timeout(600)  # whole runs of the loop, on a machine that others use too


def send(url: str, number: int, *, shift: float = 0.0, seed: int = 0, wrong: int | None = None) -> None:
    """Rows like those of training, or shifted, one request each, with their labels as feedback.

    With `wrong`, what the release of that version answers is called wrong, and all else right.
    """
    chance = random.Random(seed)  # noqa: S311 - data, no secret
    with httpx.Client(base_url=url, timeout=20) as client:
        truth = []
        for index in range(number):
            row = {"a": chance.gauss(shift, 1), "b": chance.gauss(0, 1)}
            answer = client.post("/predict/small", json={"id": f"s{seed}-{index}", "rows": [row]})
            assert answer.status_code == 200, answer.text
            said = answer.json()["predictions"][0]
            label = said["label"]
            if wrong is not None and int(answer.json()["version"]) == wrong:
                label = {"yes": "no", "no": "yes"}[label]
            truth.append({"id": said["id"], "label": label})
        for start in range(0, len(truth), 200):
            assert (
                client.post("/feedback/small", json={"feedback": truth[start : start + 200]}).status_code
                == 200
            )


@pytest.fixture
def live(released: Any, tmp_path: Path) -> Iterator[Any]:
    """The small project, its windows short, its service up; gives the project and the service's address."""
    yard = released.copy(tmp_path / "small")
    yard.change("modelyard.toml", "[endpoint]", "[monitor]\nwindow = 200\n[endpoint]")
    yield yard, yard("serve", "--json").json["url"]
    yard("serve", "stop")


def logged(yard: Any, rows: int, until: Any) -> None:
    """Waits until the log, written off the request's path, holds so many rows."""
    from modelyard.serve.reading import read_predictions

    state = yard.root / ".modelyard" / "service"
    until(lambda: read_predictions(state, "small").num_rows >= rows, 30, "the log")


def test_traffic_like_trainings_is_quiet_and_drifted_traffic_alarms(live: Any, until: Any) -> None:
    yard, url = live
    send(url, 250, seed=1)
    before = yard("releases", "--json").code
    logged(yard, 250, until)
    quiet = yard("monitor", "--json")
    assert before == 0
    assert quiet.code == 0, quiet.out + quiet.err
    assert quiet.json["rows"] >= 250
    assert quiet.json["alarms"] == []
    send(url, 250, shift=3.0, seed=2)
    logged(yard, 500, until)
    loud = yard("monitor")
    assert loud.code == 16, loud.out + loud.err
    assert "ALARM" in loud.out
    assert "do: " in loud.out
    assert "Traceback" not in loud.out + loud.err
    alarms = [
        row
        for row in yard("ledger", "show", "--last", "40", "--json").json
        if row["claim"].startswith("alarm.")
    ]
    assert alarms
    assert all(row["passed"] is False and row["subject"] == "endpoint:small" for row in alarms)
    assert yard("ledger", "verify").code == 0


def test_a_watch_prints_each_window_as_it_closes(live: Any, until: Any, tmp_path: Path) -> None:
    yard, url = live
    out = tmp_path / "watch.txt"
    process = yard.start("monitor", "--watch", "--every", "0.2")
    try:
        send(url, 450, seed=3)
        first = process.stdout.readline()
        assert first.startswith("window "), first
    finally:
        process.send_signal(signal.SIGINT)
        rest, err = process.communicate(timeout=60)
    out.write_text(first + rest)
    assert process.returncode == 130, rest + err
    assert "Traceback" not in rest + err
    verdicts = yard("ledger", "verify")
    assert verdicts.code == 0


@pytest.mark.parametrize(
    ("wrong", "champion", "claim"), [(1, 2, "endpoint.promote"), (2, 1, "endpoint.rollback")]
)
def test_a_live_canary_is_decided_by_feedback(
    live: Any, until: Any, wrong: int, champion: int, claim: str
) -> None:
    yard, url = live
    yard.change("recipe.py", "C=1.0", "C=0.5")
    done = yard("release", "--json")
    assert done.code == 0, done.out + done.err
    assert yard("endpoint", "set", "2", "--canary", "0.5").code == 0
    policy = yard("endpoint", "show", "--json").json
    assert policy["policy"]["kind"] == "canary"

    def both() -> bool:
        found = {httpx.post(f"{url}/predict/small", json={"id": f"w{n}", "rows": [{"a": 0.1, "b": 0.1}]})
                 .json()["version"] for n in range(30)}  # fmt: skip
        return len(found) == 2

    until(both, 10, "the canary")
    for seed in range(6):
        send(url, 500, seed=10 + seed, wrong=wrong)
        logged(yard, 500 * (seed + 1), until)
        assert yard("monitor").code in (0, 16)
        history = yard("endpoint", "show", "--json").json["history"]
        if history[-1]["claim"] != "endpoint.set":
            break
    assert history[-1]["claim"] == claim
    assert history[-1]["by"] == "modelyard monitor"
    until(lambda: int(httpx.post(f"{url}/predict/small", json={"rows": [{"a": 0.1, "b": 0.1}]})
                      .json()["version"]) == champion, 10, "the new champion")  # fmt: skip
    assert yard("ledger", "verify").code == 0
