"""`modelyard compress --search` as its user sees it, and what the loop makes of what it chose."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.timeout(900)  # whole searches, on a machine that others use too

RECIPE = """\
from sklearn.neural_network import MLPClassifier


def build(trial):
    return MLPClassifier((768, 768), max_iter=200, tol=1.0, n_iter_no_change=2, random_state=0)
"""
PLANS = ("--plan", "int8-static(per_channel=false)", "--plan", "share(bits=5)", "--plan", "graph")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, new_project: Callable[..., Any]) -> Any:
    """A project whose network is wide enough for eight bits to gain, trained and not yet compressed."""
    yard = new_project(tmp_path_factory.mktemp("search") / "small", recipe=RECIPE)
    yard.change("modelyard.toml", "passes = []", 'passes = []\ngoal = "size"\nmargin = 0.2')
    done = yard("compress", "--json")
    assert done.code == 0, done.out + done.err
    assert done.json["steps"][-1]["values"]["runtime"] == "onnxruntime"
    return yard


@pytest.fixture
def wide(trained: Any, tmp_path: Path) -> Iterator[Any]:
    yield trained.copy(tmp_path / "small")


def stored(yard: Any, kind: str) -> dict[str, Any] | None:
    with sqlite3.connect(yard.root / ".modelyard" / "records.db") as base:
        found = base.execute("select value from modelyard_documents where kind = ?", (kind,)).fetchone()
    base.close()
    return None if found is None else json.loads(found[0])


def rewrite(yard: Any, **changes: Any) -> None:
    value = {**(stored(yard, "compress.plan") or {}), **changes}
    with sqlite3.connect(yard.root / ".modelyard" / "records.db") as base:
        base.execute(
            "update modelyard_documents set value = ? where kind = 'compress.plan'", (json.dumps(value),)
        )
    base.close()


def compressed(yard: Any) -> dict[str, Any]:
    done = yard("compress", "--json")
    assert done.code == 0, done.out + done.err
    return dict(done.json["steps"][-1])


def why(yard: Any) -> list[str]:
    return list(yard("why", "compress", "--json").json[0]["reasons"])


def test_the_loop_uses_what_the_search_chose_and_judges_it_again(wide: Any) -> None:
    original = compressed(wide)["values"]["model"]
    done = wide("compress", "--search", *PLANS, "--budget", "60s", "--json")
    assert done.code == 0, done.out + done.err
    found = done.json
    assert found["chosen"] is not None, found["why"]
    page = Path(found["picture"]).read_text()
    assert page.startswith("<!doctype html>") and "<svg" in page and "<script" not in page
    assert found["text"] in page and found["why"].partition(":")[0] in page
    assert {point["name"].partition("(")[0] for point in found["points"]} == {"int8-static", "share", "graph"}
    assert why(wide) == ["the searched plan is new"]
    step = compressed(wide)
    values = step["values"]
    assert values["searched"]["plan"] == found["text"]
    assert values["kept"].startswith(found["text"])
    assert values["model"] == found["model"], "the same plan on the same model gives the same bytes"
    assert len(values["judgements"]) == 1, "judged again, and nothing else tried"
    assert step["headline"].endswith("searched")
    assert why(wide) == []
    # A plan that does not pass any more is refused, and the model as trained goes on.
    rewrite(wide, plan="prune(0.99)", machine="0" * 12, place="a board with 1 core")
    assert why(wide) == ["the searched plan changed"]
    refused = compressed(wide)
    assert refused["values"]["kept"] == "float"
    assert refused["values"]["model"] == original
    assert refused["headline"].startswith("kept as trained · prune")
    assert (
        "on another kind of machine (a board with 1 core), so judged again on this one" in refused["headline"]
    )
    # A plan for another recipe is none; one that the project file forgoes is none either.
    rewrite(wide, code="sha256:" + "0" * 64)
    assert why(wide) == ["the searched plan is gone"]
    rewrite(wide, code=values["searched"]["code"])
    wide.change("modelyard.toml", 'goal = "size"', 'goal = "size"\nsearch = false')
    assert why(wide) == ["[compress] search changed", "the searched plan is gone"]


def test_the_loop_searches_by_itself_once(wide: Any) -> None:
    wide.change("modelyard.toml", 'goal = "size"', 'goal = "size"\nsearch = "2s"')
    assert why(wide)[-1] == "[compress] search changed"
    values = compressed(wide)["values"]
    plan = stored(wide, "compress.plan")
    assert plan is not None
    # A search that finds nothing better is not begun again either: what it found is that.
    assert values["searched"] in (None, plan)
    assert why(wide) == []
    rewrite(wide, search="looked at")
    wide.change("modelyard.toml", 'search = "2s"', 'search = "3s"')
    compressed(wide)
    assert (stored(wide, "compress.plan") or {})["search"] == "looked at", "it searched again"


def plans_begun(err: str) -> list[int]:
    """The numbers of the plans that a search told of on stderr."""
    lines = [line for line in err.splitlines() if "plan " in line]
    return [int(line.partition("plan ")[2].partition(":")[0]) for line in lines]


def until_plan(process: Any, number: int) -> str:
    """Reads stderr until a plan is begun; what was read."""
    read = ""
    for line in process.stderr:
        read += line
        if f"plan {number}:" in line:
            return read
    raise AssertionError(read)


def test_killed_half_way_it_finds_what_was_done_and_the_original_is_there(wide: Any) -> None:
    before = compressed(wide)["values"]["model"]
    search = ("compress", "--search", "--trials", "5", "--budget", "10m")
    process = wide.start(*search)
    assert plans_begun(until_plan(process, 3)) == [1, 2, 3]
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert stored(wide, "compress.plan") is None
    assert compressed(wide)["values"]["model"] == before
    again = wide(*search)
    assert again.code == 0, again.err
    assert plans_begun(again.err)[0] in (3, 4), "what was finished is not begun again"
    assert "5 plans tried" in again.out
    assert "search" not in again.out.partition("plan  ")[0], "progress belongs on stderr"
    assert compressed(wide)["values"]["model"]


def test_ctrl_c_shows_what_there_is_and_chooses_nothing(wide: Any) -> None:
    process = wide.start("compress", "--search", "--budget", "10m")
    read = until_plan(process, 3)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130, out + err
    assert "Traceback" not in out + read + err
    assert "chosen     nothing yet\n           interrupted" in out
    assert "float" in out and "graph" in out, "the original and what was tried stand in the table"
    assert stored(wide, "compress.plan") is None
    # The budget holds for all runs of a search together, and what is known is chosen from.
    done = wide("compress", "--search", "--budget", "1s", "--json")
    assert done.code == 0, done.err
    assert done.json["stopped"] == "the budget of 1 s is used up"
    assert len(done.json["points"]) in (2, 3)
    assert done.json["interrupted"] is False


def test_a_limit_that_nothing_keeps_leaves_the_original_and_says_so(wide: Any) -> None:
    limit = '[[requirement]]\nmetric = "model_size"\nat_most = "1kB"\n\n[endpoint]'
    wide.change("modelyard.toml", "[endpoint]", limit)
    done = wide("compress", "--search", *PLANS, "--json")
    assert done.code == 0, done.err
    found = done.json
    assert found["chosen"] is None
    assert found["why"].startswith("the original is kept: no plan keeps the hard limits; the nearest, ")
    assert "the limit is 1.00 kB" in found["why"]
    assert found["front"] == [-1]
    assert all(point["stage"] == "limits" for point in found["points"])


def test_a_goal_that_nothing_meets_leaves_the_front(wide: Any) -> None:
    goal = '[[requirement]]\nmetric = "latency_p99"\nat_most = "1us"\n\n[endpoint]'
    wide.change("modelyard.toml", "[endpoint]", goal)
    done = wide("compress", "--search", *PLANS)
    assert done.code == 0, done.err
    assert "chosen     the original on onnxruntime" in done.out
    assert "the original is kept" in done.out
    assert "front" in done.out, "the trade-off survives"
    assert stored(wide, "compress.plan") is not None


def test_a_target_that_is_not_installed_is_told_before_anything_runs(project: Any, tmp_path: Path) -> None:
    blind = tmp_path / "blind" / "openvino"
    blind.mkdir(parents=True)
    (blind / "__init__.py").write_text(
        "raise ModuleNotFoundError(\"No module named 'openvino'\", name='openvino')\n"
    )
    path = f"{blind.parent}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    done = project("compress", "--search", "--target", "openvino", env={"PYTHONPATH": path})
    assert "modelyard[openvino]" in done.error()
    assert not (project.root / "contract.toml").exists(), "it trained first"
    shutil.rmtree(blind.parent)


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (("--target", "openvin"), "did you mean 'openvino'"),
        (("--budget", "soon"), "soon"),
        (("--budget", "0s"), "not a duration above zero"),
        (("--trials", "0"), "0"),
        (("--sampler", "tpee"), "tpe"),
        (("--plan", "int8-statik"), "did you mean 'int8-static'"),
        (("--plan", "tune(epochs=1)"), "trains"),
    ],
)
def test_wrong_words_are_answered(trained: Any, quick: Any, words: tuple[str, ...], match: str) -> None:
    done = quick("-C", str(trained.root), "compress", "--search", *words)
    assert match in done.error()


def test_the_runtime_that_won_is_what_is_validated_released_and_served(project: Any) -> None:
    pytest.importorskip("openvino")
    small = RECIPE.replace("(768, 768), max_iter=200, tol=1.0, n_iter_no_change=2", "(32,), max_iter=400")
    project.write("recipe.py", small)
    assert compressed(project)["values"]["runtime"] == "onnxruntime"
    # Which runtime wins is the machine's business: here it is said, as the compress step would say it.
    with sqlite3.connect(project.root / ".modelyard" / "records.db") as base:
        found = base.execute("select value from modelyard_documents where key = 'small/compress'").fetchone()
        step = json.loads(found[0])
        step["values"]["runtime"] = "openvino"
        base.execute(
            "update modelyard_documents set value = ? where key = 'small/compress'", (json.dumps(step),)
        )
    base.close()
    done = project("run", "--no-serve", "--json")
    assert done.code == 0, done.out[-2000:] + done.err
    steps = {row["name"]: row for row in done.json["steps"]}
    assert steps["serve"]["values"]["action"] == "promote", "its answers are those of training, over HTTP"
    seen = project("inspect", "small@1", "--no-machine")
    assert seen.code == 0, seen.err
    assert "note: runs on openvino" in seen.out
    project("serve", "stop")
