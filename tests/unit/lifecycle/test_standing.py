"""Whether the newest release was ever before traffic, from a real ledger, and whether the loop can run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from modelyard.core.digest import Digest, digest_bytes
from modelyard.lifecycle import standing as module
from modelyard.lifecycle.project import Project
from modelyard.lifecycle.project_file import read_project
from modelyard.lifecycle.standing import Standing, can_run, standing
from modelyard.measure.measurement import Verdict
from modelyard.release.bundle import LIMITS, release_digest
from modelyard.release.endpoint import Endpoints
from modelyard.release.endpoint_law import SET
from modelyard.release.gate import GATE
from modelyard.release.policy import Canary, Single
from modelyard.release.registry import ADDED, FORMAT
from modelyard.store.store import Store, open_store

TOML = """\
version = 1
name = "small"
task = "classification"
[data]
source = "data.py:load"
label = "y"
[train]
recipe = "recipe.py:build"
metric = "accuracy"
"""


@pytest.fixture
def project(tmp_path: Path) -> Project:
    (tmp_path / "modelyard.toml").write_text(TOML)
    return read_project(tmp_path)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = open_store(tmp_path / "store")
    yield opened
    opened.close()


def add(store: Store, version: int, *, name: str = "small") -> Digest:
    """A release as the ledger knows it, with a passed gate."""
    files = {file: digest_bytes(f"{name} {version} {file}".encode()) for file in LIMITS}
    digest = release_digest(files)
    body = {"format": FORMAT, "name": name, "version": version, "created": "", "files": files, "lineage": {}}
    store.ledger.append(digest, ADDED, body=body, by="test")
    store.ledger.append_verdict(digest, Verdict(GATE, True, "good"), by="test")
    return digest


def test_the_newest_release_waits_until_a_policy_names_it(project: Project, store: Store) -> None:
    assert standing(project, store) == Standing(answers=False, waits=True), "no release yet"
    first = add(store, 1)
    add(store, 1, name="other")
    assert standing(project, store) == Standing(answers=False, waits=True)
    endpoints = Endpoints(store)
    endpoints.set("other", Single(first), why="another endpoint", by="test")
    assert standing(project, store).waits
    endpoints.set("small", Single(first), why="the first", by="test")
    assert standing(project, store) == Standing(answers=True, waits=False)
    second = add(store, 2)
    assert standing(project, store) == Standing(answers=True, waits=True)
    endpoints.set("small", Canary(first, second, 0.5), why="a trial", by="test")
    assert not standing(project, store).waits
    endpoints.rollback("small", why="no good", by="test")
    assert standing(project, store) == Standing(answers=True, waits=False), "it had its trial"


def test_a_change_that_was_refused_is_no_trial(project: Project, store: Store) -> None:
    first, second = add(store, 1), add(store, 2)
    Endpoints(store).set("small", Single(first), why="the first", by="test")
    body = {"format": 1, "expected": 0, "policy": Single(second).to_json(), "why": "by hand", "evidence": []}
    store.ledger.append("endpoint:small", SET, body=body, by="test")
    assert Endpoints(store).history("small")[-1].refused
    assert standing(project, store).waits


def test_a_machine_that_only_serves_cannot_run(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not can_run(project), "no data and no recipe"
    (project.root / "recipe.py").touch()
    assert not can_run(project), "no data"
    (project.root / "data.py").touch()
    assert can_run(project)
    monkeypatch.setattr(module, "find_spec", lambda name: None if name == "torch" else object())
    assert not can_run(project), "no torch"
