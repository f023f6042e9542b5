"""The examples as a newcomer meets them: copied, run whole, asked once with the line that they print."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
NAMES = sorted(path.parent.name for path in EXAMPLES.glob("*/modelyard.toml"))

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(params=NAMES)
def example(request: pytest.FixtureRequest, tmp_path: Path, command: Any) -> Iterator[Path]:
    root = tmp_path / request.param
    shutil.copytree(
        EXAMPLES / request.param, root, ignore=shutil.ignore_patterns(".modelyard", "__pycache__")
    )
    path = root / "modelyard.toml"
    text = path.read_text()
    # The bounds on time are for a machine of one's own; everything else is as it ships.
    path.write_text(text.replace("25ms", "500ms"))
    yield root
    command("-C", str(root), "serve", "stop")


def test_there_are_the_two_that_the_readme_names() -> None:
    assert {"diabetes", "digits"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_an_example_passes_its_check(command: Any, name: str) -> None:
    done = command("-C", str(EXAMPLES / name), "check")
    assert done.code == 0, done.err


@pytest.mark.serial
def test_an_example_runs_to_a_monitored_service(example: Path, command: Any) -> None:
    done = command("-C", str(example), "run", "--port", "0", "--json", limit=600)
    assert done.code == 0, done.out[-3000:] + done.err
    found = done.json
    assert found["stopped"] == ""
    assert all(item["passed"] for item in found["requirements"])
    assert [row["name"] for row in found["steps"]][-1] == "monitor"
    line, answer = found["try"]
    shown = subprocess.run(["bash", "-c", line], cwd=Path.cwd(), capture_output=True, text=True, check=True)
    said = json.loads(shown.stdout)["predictions"][0]
    printed = json.loads(answer)
    if "label" in printed:
        assert said["label"] == printed["label"]
    else:
        assert said["prediction"] == pytest.approx(printed["prediction"], rel=1e-3)
    score = json.loads(command("-C", str(example), "score", "--json").out)
    supported = {row["test"] for row in score["lines"] if row["points"]}
    assert {"data.1", "infra.1", "infra.3", "infra.4", "infra.6", "infra.7"} <= supported, supported
    assert command("-C", str(example), "ledger", "verify").code == 0
    assert Path(found["report"]).stat().st_size > 10_000
