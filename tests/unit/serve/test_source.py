"""The store as the service sees it: one question a look, and none where nothing was written."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from modelyard.core.errors import StoreError
from modelyard.serve.source import StoreSource
from modelyard.store.store import open_store


def _asked(source: StoreSource, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    asked: list[int] = []
    source.changed()
    endpoints = source._open()[1]
    real = endpoints.catch_up
    monkeypatch.setattr(endpoints, "catch_up", lambda: (asked.append(1), real())[1])
    return asked


def _age(root: Path) -> None:
    """Makes the files look as if nobody had written for a while."""
    old = time.time_ns() - 10**9
    for path in root.glob("records.db*"):
        os.utime(path, ns=(old, old))


def test_a_store_that_nobody_wrote_to_is_not_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store(tmp_path)
    store.ledger.append("project:x", "note", by="me")
    source = StoreSource(tmp_path, ())
    asked = _asked(source, monkeypatch)
    _age(tmp_path)
    assert source.changed() == frozenset() and len(asked) == 1
    for _ in range(3):
        assert source.changed() == frozenset()
    assert len(asked) == 1
    # A write just now: asked each time until it is old enough to be sure of.
    store.ledger.append("project:x", "note", by="me")
    for number in range(3):
        source.changed()
        assert len(asked) == 2 + number
    _age(tmp_path)
    source.changed()
    source.changed()
    assert len(asked) == 5
    store.close()
    for path in tmp_path.glob("records.db*"):
        path.unlink()
    with pytest.raises(StoreError, match="there is no store"):
        source.changed()
    source.close()


def test_a_database_elsewhere_is_asked_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"sqlite:///{tmp_path / 'elsewhere.db'}"
    open_store(tmp_path, records=url).close()
    source = StoreSource(tmp_path, (), records=url)
    asked = _asked(source, monkeypatch)
    for _ in range(3):
        source.changed()
    assert len(asked) == 3
    source.close()
