"""Following the store: swap whole, refuse what is bad, go on without it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from modelyard.core.clock import ManualClock
from modelyard.core.errors import ReleaseError, StoreError
from modelyard.core.poll import until
from modelyard.release.policy import Single
from modelyard.serve import loader as module
from modelyard.serve.follower import Follower
from modelyard.serve.health import Health
from modelyard.serve.loader import RETRY_SECONDS, Loader
from modelyard.serve.metrics import Metrics
from modelyard.serve.router import Router
from modelyard.serve.source import StoreSource

A, B = "sha256:" + "a" * 64, "sha256:" + "b" * 64


class MemoryShelf:
    """Keeps bundles and routes in memory."""

    def __init__(self) -> None:
        self.bundles: dict[str, Any] = {}
        self.routes: dict[str, Any] = {}
        self.kept: set[str] = set()

    def policy(self, endpoint: str) -> Any:
        return self.routes.get(endpoint)

    def bundle(self, release: str) -> Any:
        return self.bundles.get(release)

    def put(self, bundle: Any) -> None:
        self.bundles[bundle.digest] = bundle

    def route(self, endpoint: str, generation: int, policy: Any) -> None:
        self.routes[endpoint] = (generation, policy)

    def has(self, release: str) -> bool:
        return release in self.bundles

    def keep(self, releases: Any) -> None:
        self.kept = set(releases)


class MemorySource:
    """A store whose answers the test sets; an exception is raised."""

    def __init__(self) -> None:
        self.answer: Any = (1, Single(A))
        self.asked = 0

    def changed(self) -> frozenset[str]:
        self.asked += 1
        if isinstance(self.answer, Exception) and not isinstance(self.answer, ReleaseError):
            raise self.answer
        return frozenset({"e"})

    def policy(self, endpoint: str) -> Any:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def fetch(self, release: str) -> Any:
        return SimpleNamespace(digest=release)

    def close(self) -> None: ...


class Scene:
    def __init__(self, bench: Any, monkeypatch: pytest.MonkeyPatch, shelf: MemoryShelf | None = None) -> None:
        monkeypatch.setattr(module, "load_release", lambda bundle: bundle)
        self.bench = bench
        self.router = Router(("e",))
        self.shelf = shelf or MemoryShelf()
        self.source = MemorySource()
        self.clock = ManualClock()
        self.metrics = Metrics()
        self.bad: dict[str, Exception] = {}
        self.loader = Loader(
            self.router, self.shelf, self.source, make_ready=self.make_ready,  # type: ignore[arg-type]
            metrics=self.metrics, clock=self.clock,
        )  # fmt: skip
        self.follower = Follower(
            ("e",), self.loader, self.shelf, self.source,  # type: ignore[arg-type]
            metrics=self.metrics, clock=self.clock, poll=0.01,
        )  # fmt: skip
        self.health = Health(self.router, self.follower)

    def make_ready(self, endpoint: str, release: Any) -> Any:
        if release.digest in self.bad:
            raise self.bad[release.digest]
        return self.bench.served(release.digest[-1])

    @property
    def generation(self) -> int:
        return self.router.endpoints["e"].generation


@pytest.fixture
def scene(bench: Any, monkeypatch: pytest.MonkeyPatch) -> Scene:
    return Scene(bench, monkeypatch)


def test_a_new_generation_is_taken_over_once(scene: Scene) -> None:
    assert not scene.health.ready and not scene.health.settled
    scene.follower.look()
    scene.follower.look()
    assert scene.health.ready and scene.generation == 1
    assert scene.shelf.routes == {"e": (1, Single(A))}
    first = scene.router.endpoints["e"].champion
    scene.source.answer = (2, Single(B))
    scene.follower.look()
    assert scene.generation == 2
    # The release before stays on disk: a rollback needs no fetch.
    assert scene.shelf.kept == {A, B}
    scene.source.answer = (3, Single(B))
    second = scene.router.endpoints["e"].champion
    scene.follower.look()
    assert scene.router.endpoints["e"].champion is second is not first
    assert 'modelyard_endpoint_generation{endpoint="e"} 3' in scene.metrics.text().decode()


@pytest.mark.parametrize("error", [ReleaseError("tampered"), MemoryError("too large"), RuntimeError("odd")])
def test_a_bad_release_is_refused_and_tried_again_later(scene: Scene, error: Exception) -> None:
    scene.follower.look()
    scene.bad[B] = error
    scene.source.answer = (2, Single(B))
    for _ in range(3):
        scene.follower.look()
    assert scene.generation == 1 and scene.health.ready
    assert scene.health.report()["endpoints"]["e"]["refused"]["why"] == str(error)
    assert 'modelyard_refused_total{endpoint="e"} 1' in scene.metrics.text().decode()
    scene.bad.clear()
    scene.follower.look()
    assert scene.generation == 1, "not at once"
    scene.clock.advance(RETRY_SECONDS)
    scene.follower.look()
    assert scene.generation == 2
    assert "refused" not in scene.health.report()["endpoints"]["e"]


def test_a_refused_policy_that_is_taken_back_is_forgotten(scene: Scene) -> None:
    scene.follower.look()
    scene.bad[B] = ReleaseError("bad")
    scene.source.answer = (2, Single(B))
    scene.follower.look()
    scene.source.answer = (3, Single(A))
    scene.follower.look()
    assert scene.generation == 3 and not scene.follower.refused


@pytest.mark.parametrize("error", [StoreError("away"), OSError("odd driver")])
def test_serving_goes_on_without_the_store(scene: Scene, error: Exception) -> None:
    scene.follower.look()
    scene.source.answer = error
    scene.follower.look()
    report = scene.health.report()
    assert report["ready"] and not report["store"]["reachable"] and str(error) in report["store"]["error"]
    assert "modelyard_store_up 0" in scene.metrics.text().decode()
    scene.source.answer = (1, Single(A))
    scene.follower.look()
    assert scene.health.report()["store"] | {"since": ""} == {"reachable": True, "since": "", "error": None}


def test_it_begins_from_its_own_copy(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    shelf = MemoryShelf()
    shelf.routes["e"] = (4, Single(A))
    shelf.put(SimpleNamespace(digest=A))
    scene = Scene(bench, monkeypatch, shelf)
    scene.follower.restore()
    assert scene.generation == 4 and scene.source.asked == 0


def test_a_copy_that_is_damaged_waits_for_the_store(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    shelf = MemoryShelf()
    shelf.routes["e"] = (4, Single(A))
    scene = Scene(bench, monkeypatch, shelf)
    scene.follower.restore()
    assert not scene.health.ready
    scene.follower.look()
    assert scene.generation == 1


def test_an_endpoint_that_does_not_exist_settles(scene: Scene) -> None:
    scene.source.answer = ReleaseError("there is no endpoint 'e'")
    scene.follower.look()
    assert scene.health.settled and not scene.health.ready
    assert "no endpoint" in scene.health.report()["endpoints"]["e"]["refused"]["why"]


def test_the_thread_follows_and_ends(scene: Scene) -> None:
    scene.follower.start()
    assert until(lambda: "e" in scene.router.endpoints, 10, every=0.005)
    scene.follower.stop()


def test_no_store_is_begun_by_reading(tmp_path: Path) -> None:
    source = StoreSource(tmp_path / "store", ())
    with pytest.raises(StoreError, match="no store"):
        source.changed()
    assert not (tmp_path / "store").exists()
    source.close()
