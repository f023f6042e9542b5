"""The facade: where things go, what is lazily made, what is refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from modelyard.core.clock import ManualClock
from modelyard.core.errors import StoreError
from modelyard.store.folder import FolderObjects
from modelyard.store.store import open_store


def test_everything_lies_under_the_root_by_default(tmp_path: Path) -> None:
    root = tmp_path / "new" / "store"
    store = open_store(root, clock=ManualClock(0.0))
    assert not root.exists()
    digest = store.objects.put(b"abc")
    # The database is made with the first object's entry, even when a process is stopped between the two.
    store.ledger.append(digest, "made", by="me")
    run = store.records.start_run("p", "train")
    assert store.records.run(run).started == "1970-01-01T00:00:00.000000Z"
    store.close()
    assert sorted(path.name for path in root.iterdir()) == ["objects", "records.db"]
    again = open_store(root)
    assert again.objects.get(digest) == b"abc"
    assert again.ledger.verify() == 1
    again.close()


def test_a_lost_ledger_is_not_begun_anew(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    store.ledger.append(store.objects.put(b"abc"), "made", by="me")
    store.close()
    (tmp_path / "records.db").rename(tmp_path / "elsewhere.db")
    with pytest.raises(StoreError, match=r"records\.db is missing.*restore it from a backup"):
        open_store(tmp_path)
    shutil.rmtree(tmp_path / "objects")
    assert open_store(tmp_path).ledger.verify() == 0


def test_places_by_name(tmp_path: Path) -> None:
    store = open_store(
        tmp_path / "root", records=f"sqlite:///{tmp_path}/other.db", objects=str(tmp_path / "blobs")
    )
    store.records.put_document("k", "x", 1)
    digest = store.objects.put(b"abc")
    assert (tmp_path / "other.db").is_file()
    assert list(FolderObjects(tmp_path / "blobs").digests()) == [digest]
    store.close()
    assert (
        repr(open_store(tmp_path, objects="s3://bucket/prefix").objects) == "S3Objects('s3://bucket/prefix')"
    )


@pytest.mark.parametrize(
    "spec", ["gs://bucket", "ftp://me:hunter2@host/x", "s3://", "s3://me:hunter2@bucket"]
)
def test_places_that_are_none(tmp_path: Path, spec: str) -> None:
    with pytest.raises(StoreError) as caught:
        open_store(tmp_path, objects=spec)
    assert "s3://BUCKET" in str(caught.value)
    assert "hunter2" not in str(caught.value) + repr(caught.value)
