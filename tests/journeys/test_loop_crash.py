"""The loop cut off at any moment: the next run goes on, the ledger verifies, nothing acknowledged is lost."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.timeout(600)  # whole runs of the loop, on a machine that others use too


def entries(yard: Any) -> list[str]:
    """Every line of the ledger; none where there is no store yet."""
    if not (yard.root / ".modelyard" / "records.db").exists():
        return []
    done = yard("ledger", "export")
    assert done.code == 0, done.err
    return list(done.out.splitlines())


def rows_of(process: Any) -> list[str]:
    """The steps whose finished rows a run printed before it was cut off."""
    out, _ = process.communicate()
    return [line.split()[0] for line in out.splitlines() if line.strip() and not line.startswith(" ")]


def test_kill_9_at_random_moments_loses_nothing(project: Any, processes_below: Any, until: Any) -> None:
    chance = random.Random(7)  # noqa: S311 - moments, no secret
    kept: list[str] = []
    finished: set[str] = set()
    # Early, while training, while validating and while the canary runs: the run takes about ten seconds.
    for moment in (0.6, 2.0, 4.0, 6.0, 3.0):
        process = project.start("run", "--no-serve")
        try:
            process.wait(timeout=moment * chance.uniform(0.7, 1.3))
        except Exception:  # it is still running, as it should be
            os.killpg(process.pid, signal.SIGKILL)
        finished |= set(rows_of(process))
        now = entries(project)
        assert now[: len(kept)] == kept, "an acknowledged entry is gone"
        kept = now
    done = project("run", "--no-serve", "--json")
    assert done.code == 0, done.out + done.err
    now = entries(project)
    assert now[: len(kept)] == kept
    assert project("ledger", "verify", "--json").json["entries"] == len(now)
    assert done.json["stopped"] == ""
    assert [row["name"] for row in done.json["steps"]][-1] == "monitor"
    # What a killed run had finished was not done again: each finished step has one generation of entries.
    claims = [json.loads(line)["claim"] for line in now]
    if "data" in finished:
        assert claims.count("data.1") == 1
    assert project("releases", "--verify").code == 0
    # No stage of a killed run goes on serving once another run has passed by.
    project("serve", "stop")
    until(lambda: not processes_below(project.root), 20, "the end of every process")


def test_ctrl_c_says_how_to_go_on(project: Any, until: Any) -> None:
    process = project.start("run", "--no-serve")
    until((project.root / "contract.toml").exists, 30, "the data step")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130, out + err
    assert err.strip().startswith("interrupted: "), err
    assert "the same command goes on from there" in err
    assert "Traceback" not in out + err
    assert project("ledger", "verify").code == 0
    done = project("why", "--json").json
    # Stopped within the data step or after it: either way nothing half done counts as done.
    assert done[1]["reasons"] in (["it has not run yet"], ["data has to run first"], [])


def test_ctrl_c_with_json_is_one_document(project: Any, until: Any) -> None:
    process = project.start("train", "--json")
    until((project.root / "contract.toml").exists, 30, "the data step")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130, out + err
    assert json.loads(out)["error"]["kind"] == "Interrupted"


def test_the_second_of_two_runs_waits_and_then_says_who_holds_the_lock(project: Any, until: Any) -> None:
    waits = "def build(trial):\n    while not Path(__file__).with_name('go').exists():\n        sleep(0.05)"
    project.change("recipe.py", "def build(trial):", waits)
    project.change(
        "recipe.py", "from sklearn", "from pathlib import Path\nfrom time import sleep\n\nfrom sklearn"
    )
    first = project.start("train")
    lock = project.root / ".modelyard" / "run.lock"
    until(lambda: lock.exists() and b"process" in lock.read_bytes(), 30, "the first run")
    began = time.monotonic()
    second = project("train")
    assert second.code == 8
    error = second.error()
    assert f"process {first.pid}" in error
    assert "'modelyard train'" in error
    assert time.monotonic() - began > 4.5, "it did not wait"
    assert project("why").code == 0, "looking needs no lock"
    (project.root / "go").touch()
    out, err = first.communicate(timeout=60)
    assert first.returncode == 0, out + err
    # The lock of a process that is gone holds nobody up, whatever the file says.
    assert project("data").code == 0


def test_a_stage_that_a_killed_run_left_behind_is_cleared_by_the_next(
    project: Any, processes_below: Any, until: Any
) -> None:
    process = project.start("validate")
    stages = project.root / ".modelyard" / "work" / "stages"

    def serving() -> list[Path]:
        return list(stages.glob("stage-*/service/service.json"))

    until(serving, 60, "the rehearsal's service")
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert project("validate").code == 0
    assert list(stages.glob("stage-*")) == []
    until(lambda: not processes_below(project.root), 20, "the end of the killed run's service")
