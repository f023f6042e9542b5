from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from modelyard.core.digest import digest_bytes
from modelyard.core.errors import BundleTampered, ReleaseError
from modelyard.release.bundle import Bundle
from modelyard.release.key import SigningKey, signing_key
from modelyard.release.registry import ADDED, Registry
from modelyard.store.store import Store, open_store

Make = Callable[..., Bundle]


@pytest.fixture
def registry(store: Store, key: SigningKey) -> Registry:
    return Registry(store, [key.public])


def test_versions_count_up_by_name(registry: Registry, make: Make) -> None:
    assert registry.next_version("digits") == 1
    first = registry.add(make(1), by="tester")
    second = registry.publish("digits", make)
    other = registry.publish("other", lambda version: make(version, name="other"))
    assert [(item.name, item.version) for item in registry.list()] == [
        ("digits", 1),
        ("digits", 2),
        ("other", 1),
    ]
    assert registry.list("digits") == [first, second]
    assert registry.list("absent") == []
    assert registry.get("digits") == second
    assert registry.get("digits", 1) == first
    assert registry.by_digest(other.digest) == other


def test_what_was_added_is_fetched(registry: Registry, bundle: Bundle) -> None:
    release = registry.add(bundle)
    assert release.digest == bundle.digest
    assert release.lineage["model"] == bundle.digests["model.onnx"]
    assert dict(registry.fetch(release).files) == dict(bundle.files)


def test_the_identical_bundle_is_the_same_release(registry: Registry, bundle: Bundle, store: Store) -> None:
    assert registry.add(bundle) == registry.add(bundle)
    assert len(store.ledger.entries(claim=ADDED)) == 1


def test_a_version_that_is_taken_or_skips_one(registry: Registry, make: Make, store: Store) -> None:
    registry.add(make(1))
    for version in (1, 3):
        with pytest.raises(ReleaseError, match="the next version is 2"):
            registry.add(make(version, weight=2.0))
    assert len(store.ledger.entries(claim=ADDED)) == 1


def test_what_is_not_there(registry: Registry, make: Make) -> None:
    with pytest.raises(ReleaseError, match="no release of 'digits'"):
        registry.get("digits")
    registry.add(make(1))
    with pytest.raises(ReleaseError, match="did you mean 'digits'"):
        registry.get("digit")
    with pytest.raises(ReleaseError, match="1 to 1"):
        registry.get("digits", 2)
    with pytest.raises(ReleaseError, match="no release has this digest"):
        registry.by_digest(digest_bytes(b""))


def test_all_state_comes_from_the_ledger(
    registry: Registry, make: Make, store: Store, key: SigningKey
) -> None:
    releases = [registry.publish("digits", make) for _ in range(3)]
    assert Registry(store, [key.public]).list() == releases


def test_a_bundle_of_a_stranger_is_not_added(
    registry: Registry, make: Make, tmp_path: Path, store: Store
) -> None:
    with pytest.raises(BundleTampered, match="not trusted"):
        registry.add(make(key=signing_key(tmp_path / "stranger")))
    assert store.ledger.head() is None
    assert list(store.objects.digests()) == []


def test_every_fetch_verifies(registry: Registry, bundle: Bundle, store: Store) -> None:
    """The second fetch finds the damage that the first one could not have seen."""
    release = registry.add(bundle)
    registry.fetch(release)
    digest = release.files["model.onnx"].removeprefix("sha256:")
    (path,) = [path for path in store.root.rglob("*") if path.is_file() and digest[4:] in path.name]
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(BundleTampered, match=r"model\.onnx") as caught:
        registry.fetch(release)
    assert caught.value.where == "model.onnx"
    path.unlink()
    with pytest.raises(BundleTampered, match=r"model\.onnx"):
        registry.fetch(release)


def test_a_key_that_is_no_longer_trusted_opens_nothing(
    registry: Registry, bundle: Bundle, store: Store
) -> None:
    release = registry.add(bundle)
    with pytest.raises(BundleTampered, match="not trusted"):
        Registry(store, []).fetch(release)


def test_a_release_swapped_for_another_signed_one_is_found(registry: Registry, make: Make) -> None:
    old, new = registry.add(make(1)), registry.add(make(2))
    with pytest.raises(BundleTampered, match="not the release that was asked for"):
        registry.fetch(replace(new, files=old.files))


def test_entries_by_hand_add_nothing(registry: Registry, bundle: Bundle, store: Store) -> None:
    release = registry.add(bundle)
    body = store.ledger.entries(claim=ADDED)[0].body
    for wrong in (
        {},
        {**body, "version": 2},
        {**body, "version": 3},
        {**body, "files": {}},
        {**body, "format": 9},
    ):
        store.ledger.append(digest_bytes(b"x"), ADDED, body=wrong, by="intruder")
    assert registry.list() == [release]
    assert registry.next_version("digits") == 2


@pytest.fixture
def race(tmp_path: Path, make: Make, key: SigningKey) -> Callable[[int, bool], list[tuple[int, str]]]:
    """Runs processes that publish at once, each over its own connection; all start at a barrier."""
    context = multiprocessing.get_context("fork")

    def run(processes: int, identical: bool) -> list[tuple[int, str]]:
        open_store(tmp_path / "shared").close()
        barrier, said = context.Barrier(processes), context.Queue()

        def work(number: int) -> None:
            store = open_store(tmp_path / "shared")
            registry = Registry(store, [key.public])
            barrier.wait(30)
            for turn in range(3):
                if identical:
                    release = registry.add(make(1))
                else:
                    weight = 1.0 + number + turn / 10
                    release = registry.publish(
                        "digits", lambda version, weight=weight: make(version, weight=weight)
                    )
                said.put((release.version, release.digest))
            store.close()

        workers = [context.Process(target=work, args=(number,)) for number in range(processes)]
        for worker in workers:
            worker.start()
        found = [said.get(timeout=60) for _ in range(3 * processes)]
        for worker in workers:
            worker.join(30)
            assert worker.exitcode == 0
        return found

    return run


def test_processes_that_publish_at_once_never_share_a_version(
    race: Callable[[int, bool], list[tuple[int, str]]], tmp_path: Path, key: SigningKey
) -> None:
    found = race(4, False)
    assert sorted(version for version, _ in found) == list(range(1, 13))
    store = open_store(tmp_path / "shared")
    registry = Registry(store, [key.public])
    assert [(item.version, item.digest) for item in registry.list()] == sorted(found)
    assert all(registry.fetch(item).digest == item.digest for item in registry.list())
    assert store.ledger.verify() >= 12
    store.close()


def test_processes_that_add_the_same_bundle_at_once_get_the_same_release(
    race: Callable[[int, bool], list[tuple[int, str]]], bundle: Bundle
) -> None:
    assert set(race(4, True)) == {(1, bundle.digest)}
