"""`modelyard serve` alone: what was never before traffic is canaried first; what was, just starts."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

pytestmark = pytest.mark.timeout(600)  # whole runs of the loop, on a machine that others use too


def version(url: str) -> int:
    answer = httpx.post(f"{url}/predict/small", json={"rows": [{"a": 0.3, "b": 0.4}]}, timeout=10)
    assert answer.status_code == 200, answer.text
    return int(answer.json()["version"])


def names(found: Any) -> list[str]:
    return [step["name"] for step in found["steps"]]


@pytest.fixture
def waiting(yard: Any) -> Any:
    """A project whose second release was never before traffic."""
    yard.change("recipe.py", "C=1.0", "C=0.5")
    assert yard("release").code == 0
    assert [row["endpoint"] for row in yard("releases", "--json").json] == ["small", None]
    return yard


def test_without_a_release_the_loop_runs_up_to_a_service(project: Any) -> None:
    done = project("serve")
    assert done.code == 0, done.out + done.err
    assert "canary: promote" in done.out
    assert "small answers at http://" in done.out
    assert project("ledger", "show", "--claim", "monitor.2", "--json").json == [], "it ends at serve"
    pid = project("serve", "status", "--json").json["pid"]
    again = project("serve", "--json").json
    assert (again["pid"], again["steps"]) == (pid, [])
    assert version(again["url"]) == 1
    project("serve", "stop")


def test_a_release_that_was_never_before_traffic_is_canaried(waiting: Any) -> None:
    done = waiting("serve", "--json")
    assert done.code == 0, done.out + done.err
    assert names(done.json) == ["data", "train", "compress", "validate", "release", "serve"]
    assert version(done.json["url"]) == 2
    history = waiting("endpoint", "show", "--json").json["history"]
    assert [row["claim"] for row in history] == ["endpoint.set", "endpoint.set", "endpoint.promote"]
    assert history[1]["policy"]["kind"] == "canary"
    assert history[1]["by"] == "modelyard serve"
    assert waiting("endpoint", "rollback").code == 0
    waiting("serve", "stop")
    assert waiting("serve", "--json").json["steps"] == [], "it had its trial"


def test_a_machine_that_only_serves_just_starts(waiting: Any) -> None:
    for file in ("data.csv", "recipe.py", "contract.toml"):
        (waiting.root / file).unlink()
    done = waiting("serve", "--json")
    assert done.code == 0, done.out + done.err
    assert done.json["steps"] == []
    assert version(done.json["url"]) == 1
    assert len(waiting("endpoint", "show", "--json").json["history"]) == 1


def test_the_champion_answers_though_the_loop_stops_or_fails(waiting: Any) -> None:
    waiting.write("data.csv", "a,b,y\n" + "1,2,maybe\n" * 40)
    done = waiting("serve", "--json")
    assert done.code == 15, done.out + done.err
    assert names(done.json) == ["data"]
    assert version(done.json["url"]) == 1
    waiting("serve", "stop")
    waiting.write("recipe.py", "def build(trial):\n    return 1 / 0\n")
    waiting.write("data.csv", "a,b\n")
    waiting("serve").error()
    assert version(waiting("serve", "status", "--json").json["url"]) == 1
