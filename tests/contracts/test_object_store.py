"""The contract of `ObjectStore`, over a folder and over a real S3 server process."""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import sys
import threading
import traceback
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from modelyard.core.digest import digest_bytes
from modelyard.core.errors import ObjectCorrupt, ObjectMissing, StoreError
from modelyard.core.poll import until
from modelyard.store.folder import FolderObjects
from modelyard.store.objects import ObjectStore
from modelyard.store.s3 import S3Objects

KEY = "AKIAS3CRETKEYOFTESTS"
SECRET = "hunter2-s3cret"
Damage = Callable[[str, bytes], None]


def answers(url: str) -> bool:
    try:
        urllib.request.urlopen(url + "/moto-api/data.json", timeout=5).close()  # noqa: S310 (ours)
    except OSError:
        return False
    return True


@pytest.fixture(scope="module")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        port = door.getsockname()[1]
    log = (tmp_path_factory.mktemp("s3") / "log").open("wb")
    program = "from moto.server import main; main()"
    server = subprocess.Popen(
        [sys.executable, "-c", program, "-H", "127.0.0.1", "-p", str(port)], stdout=log, stderr=log
    )
    url = f"http://127.0.0.1:{port}"
    try:
        assert until(lambda: server.poll() is not None or answers(url), 60) and server.poll() is None
        yield url
    finally:
        server.terminate()
        server.wait(20)
        log.close()


@pytest.fixture
def s3_bucket(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    import boto3

    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    bucket = "b" + secrets.token_hex(6)
    boto3.session.Session().client("s3", region_name="us-east-1").create_bucket(Bucket=bucket)
    return bucket


@pytest.fixture(params=["folder", "s3", "s3 prefix"])
def store_and_damage(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[ObjectStore, Damage]:
    """A store, and a way past it to the bytes of an object."""
    if request.param == "folder":
        root = tmp_path / "objects"

        def damage_file(digest: str, data: bytes) -> None:
            name = digest.removeprefix("sha256:")
            path = root / name[:2] / name[2:]
            path.chmod(0o644)
            path.write_bytes(data)

        return FolderObjects(root), damage_file
    bucket = request.getfixturevalue("s3_bucket")
    prefix = "a/prefix/" if request.param == "s3 prefix" else ""

    def damage_object(digest: str, data: bytes) -> None:
        import boto3

        name = digest.removeprefix("sha256:")
        client = boto3.session.Session().client("s3", region_name="us-east-1")
        client.put_object(Bucket=bucket, Key=f"{prefix}{name[:2]}/{name[2:]}", Body=data)

    return S3Objects(f"s3://{bucket}/{prefix}"), damage_object


@pytest.fixture
def store(store_and_damage: tuple[ObjectStore, Damage]) -> ObjectStore:
    return store_and_damage[0]


@pytest.mark.parametrize("data", [b"", b"abc", bytes(range(256)) * 10_000], ids=["empty", "short", "2.5 MB"])
def test_what_was_put_comes_back(store: ObjectStore, data: bytes) -> None:
    digest = store.put(data)
    assert digest == digest_bytes(data)
    assert store.has(digest)
    assert store.get(digest) == data


def test_the_same_bytes_are_one_object(store: ObjectStore) -> None:
    assert store.put(b"abc") == store.put(b"abc")
    assert list(store.digests()) == [digest_bytes(b"abc")]


def test_an_empty_store(store: ObjectStore) -> None:
    assert list(store.digests()) == []
    assert not store.has(digest_bytes(b"abc"))
    with pytest.raises(ObjectMissing, match=digest_bytes(b"abc")):
        store.get(digest_bytes(b"abc"))


def test_digests_are_in_ascending_order(store: ObjectStore) -> None:
    made = {store.put(b"%d" % i) for i in range(30)}
    assert list(store.digests()) == sorted(made)


def test_other_bytes_under_a_digest_are_never_returned(store_and_damage: tuple[ObjectStore, Damage]) -> None:
    store, damage = store_and_damage
    digest = store.put(b"abcdef")
    for wrong in (b"abcdeg", b"abc", b""):
        damage(digest, wrong)
        with pytest.raises(ObjectCorrupt, match=digest):
            store.get(digest)
    # Putting the right bytes again mends what was cut short.
    assert store.put(b"abcdef") == digest
    assert store.get(digest) == b"abcdef"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "abc",
        "sha256:abc",
        "sha256:" + "A" * 64,
        "sha256:../../../etc/passwd",
        "sha256:" + "a" * 64 + "\n",
    ],
)
def test_what_is_no_digest_is_refused_before_anything_is_touched(store: ObjectStore, text: str) -> None:
    for call in (store.get, store.has):
        with pytest.raises(ValueError, match="is not a digest"):
            call(text)


def test_many_threads_put_and_get(store: ObjectStore) -> None:
    failures: list[BaseException] = []

    def work(start: int) -> None:
        try:
            for i in range(start, start + 8):
                data = b"%d" % (i % 10)
                assert store.get(store.put(data)) == data
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(i * 3,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(list(store.digests())) == 10


def test_strangers_in_the_place_are_not_objects(
    store_and_damage: tuple[ObjectStore, Damage], tmp_path: Path
) -> None:
    store, damage = store_and_damage
    digest = store.put(b"abc")
    if isinstance(store, FolderObjects):
        (tmp_path / "objects" / "README").write_text("hello")
        (tmp_path / "objects" / digest[7:9] / ".x.part").write_text("hello")
    else:
        damage("sha256:zz" + "0" * 62, b"hello")
        damage("sha256:ab" + "0" * 60, b"hello")
    assert list(store.digests()) == [digest]


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    store = FolderObjects(tmp_path / "file")
    with pytest.raises(StoreError, match=r"cannot be written.*free some space or check"):
        store.put(b"abc")
    assert list(store.digests()) == []


def test_a_disk_without_room_leaves_no_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno

    store = FolderObjects(tmp_path)

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(StoreError, match="No space left on device"):
        store.put(b"abc")
    monkeypatch.undo()
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    assert store.get(store.put(b"abc")) == b"abc"


def test_a_missing_bucket_is_no_missing_object(s3_bucket: str) -> None:
    store = S3Objects("s3://" + s3_bucket + "-other")
    for call in (
        lambda: store.put(b"abc"),
        lambda: store.has(digest_bytes(b"abc")),
        lambda: list(store.digests()),
    ):
        with pytest.raises(StoreError, match="make the bucket, or correct the objects URL"):
            call()
    with pytest.raises(StoreError, match="make the bucket") as caught:
        store.get(digest_bytes(b"abc"))
    assert not isinstance(caught.value, ObjectMissing)


def test_a_server_that_is_away_and_secrets_that_never_show(
    s3_bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://me:{SECRET}@127.0.0.1:1")
    store = S3Objects(f"s3://{s3_bucket}", timeout=0.5, attempts=1)
    for call in (
        lambda: store.put(b"abc"),
        lambda: store.get(digest_bytes(b"abc")),
        lambda: list(store.digests()),
    ):
        with pytest.raises(StoreError, match="check AWS_ENDPOINT_URL") as caught:
            call()
        shown = "".join(traceback.format_exception(caught.value)) + repr(store) + str(caught.value.facts())
        assert SECRET not in shown
        assert KEY not in shown


def test_no_credentials_at_all(s3_bucket: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    with pytest.raises(StoreError, match=r"NoCredentialsError.*credentials"):
        S3Objects(f"s3://{s3_bucket}").put(b"abc")
