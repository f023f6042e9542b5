"""The loader and the follower of many endpoints: known cheaply, loaded once, evicted, swapped while away."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
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
from modelyard.serve.loader import RETRY_SECONDS, STORE_RETRY_SECONDS, Loader
from modelyard.serve.metrics import Metrics
from modelyard.serve.residency import Residency
from modelyard.serve.router import Router

NAMES = tuple(f"e{number}" for number in range(5))


def digest(text: str) -> str:
    return "sha256:" + text.encode().hex().ljust(64, "0")


class Shelf:
    """Copies in memory."""

    def __init__(self) -> None:
        self.bundles: dict[str, Any] = {}
        self.routes: dict[str, Any] = {}

    def policy(self, endpoint: str) -> Any:
        return self.routes.get(endpoint)

    def bundle(self, release: str) -> Any:
        return self.bundles.get(release)

    def has(self, release: str) -> bool:
        return release in self.bundles

    def put(self, bundle: Any) -> None:
        self.bundles[bundle.digest] = bundle

    def route(self, endpoint: str, generation: int, policy: Any) -> None:
        self.routes[endpoint] = (generation, policy)

    def keep(self, releases: Any) -> None:
        self.bundles = {key: kept for key, kept in self.bundles.items() if key in releases}


class Store:
    """Policies that the test sets; says once what has changed."""

    def __init__(self) -> None:
        self.policies = {name: (1, Single(digest(name))) for name in NAMES}
        self.news = set(NAMES)
        self.error: Exception | None = None
        self.asked = 0

    def set(self, name: str, release: str) -> None:
        self.policies[name] = (self.policies[name][0] + 1, Single(digest(release)))
        self.news.add(name)

    def changed(self) -> frozenset[str]:
        self.asked += 1
        if self.error is not None:
            raise self.error
        news, self.news = frozenset(self.news), set()
        return news

    def policy(self, endpoint: str) -> Any:
        return self.policies[endpoint]

    def fetch(self, release: str) -> Any:
        if self.error is not None:
            raise self.error
        return SimpleNamespace(digest=release)

    def close(self) -> None: ...


class Scene:
    def __init__(self, bench: Any, *, budget: float = float("inf"), pinned: frozenset[str] = frozenset(),
                 eager: int = 1) -> None:  # fmt: skip
        self.bench = bench
        self.router = Router(NAMES)
        self.shelf, self.store, self.clock, self.metrics = Shelf(), Store(), ManualClock(), Metrics()
        self.loads: list[str] = []
        self.bad: dict[str, Exception] = {}
        self.gone: list[str] = []
        self.entered, self.gate = threading.Event(), threading.Event()
        self.gate.set()
        self.loader = Loader(
            self.router, self.shelf, self.store, make_ready=self.make_ready,  # type: ignore[arg-type]
            metrics=self.metrics, clock=self.clock, residency=Residency(budget, pinned),
        )  # fmt: skip
        self.loader.gone = lambda endpoint: self.gone.append(endpoint.name)
        self.follower = Follower(
            NAMES, self.loader, self.shelf, self.store,  # type: ignore[arg-type]
            metrics=self.metrics, clock=self.clock, poll=0.01, eager=eager, pinned=pinned,
        )  # fmt: skip
        self.health = Health(self.router, self.follower)

    def make_ready(self, endpoint: str, release: Any) -> Any:
        self.entered.set()
        self.gate.wait(10)
        self.loads.append(endpoint)
        if release.digest in self.bad:
            raise self.bad[release.digest]
        served = self.bench.served("a")
        values = {name: getattr(served, name) for name in served.__slots__ if name not in ("fixed",)}
        return type(served)(**values | {"digest": release.digest, "bytes": 10})

    def ask(self, name: str) -> None:
        """As a request does, and waits for what becomes of it."""
        self.follower.want(name)
        assert until(lambda: self.loader.state(name) != "loading")


@pytest.fixture
def make(bench: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Scene]]:
    monkeypatch.setattr(module, "load_release", lambda bundle: bundle)
    made: list[Scene] = []

    def begin(**options: Any) -> Scene:
        made.append(Scene(bench, **options))
        made[-1].loader.start()
        return made[-1]

    yield begin
    for scene in made:
        scene.loader.stop()


def test_one_query_a_look_and_only_the_first_endpoint_is_loaded(make: Callable[..., Scene]) -> None:
    scene = make()
    for _ in range(3):
        scene.follower.look()
    assert scene.store.asked == 3 and scene.loads == ["e0"]
    assert scene.health.ready and scene.health.settled
    assert [scene.loader.state(name) for name in NAMES] == ["ready", "cold", "cold", "cold", "cold"]
    assert all(scene.health.endpoint_ready(name) for name in NAMES)
    # What was never loaded is copied all the same: it must not need the store.
    assert set(scene.shelf.routes) == set(NAMES) and len(scene.shelf.bundles) == 5


def test_many_requests_cause_one_load(make: Callable[..., Scene]) -> None:
    scene = make()
    scene.follower.look()
    scene.gate.clear()
    for _ in range(20):
        scene.follower.want("e3")
    assert until(lambda: scene.loader.state("e3") == "loading")
    scene.gate.set()
    assert until(lambda: scene.loader.state("e3") == "ready")
    scene.ask("e3")
    assert scene.loads == ["e0", "e3"]


def test_what_is_asked_for_before_its_policy_is_known_is_loaded_then(make: Callable[..., Scene]) -> None:
    scene = make()
    scene.ask("e2")
    assert scene.loader.state("e2") == "unknown"
    scene.follower.look()
    assert until(lambda: scene.loader.state("e2") == "ready")


def test_a_budget_evicts_but_neither_the_pinned_nor_what_is_in_use(make: Callable[..., Scene]) -> None:
    scene = make(budget=25, pinned=frozenset({"e4"}))
    scene.loader.in_use = lambda name: name == "e0"
    scene.follower.look()
    for name in ("e1", "e2", "e3", "e1"):
        scene.ask(name)
        states = {each: scene.loader.state(each) for each in NAMES}
        assert states[name] == states["e0"] == states["e4"] == "ready"
    assert [name for name in NAMES if scene.loader.state(name) == "evicted"] == ["e2", "e3"]
    assert scene.gone == ["e1", "e2", "e3"]
    # What was in use when its memory was wanted goes when it is free.
    scene.loader.in_use = lambda name: False
    scene.loader.tidy()
    assert sorted(scene.router.endpoints) in (["e0", "e4"], ["e1", "e4"])
    text = scene.metrics.text().decode()
    assert 'modelyard_evictions_total{why="memory"} 4' in text and "modelyard_resident_bytes 20" in text
    assert scene.health.ready


def test_a_swap_of_what_is_evicted_is_proved_first(make: Callable[..., Scene]) -> None:
    scene = make(budget=10, eager=0)
    scene.follower.look()
    scene.ask("e1")
    scene.ask("e2")
    assert scene.loader.state("e1") == "evicted"
    scene.bad[digest("bad")] = ReleaseError("it answers wrongly")
    scene.store.set("e1", "bad")
    scene.follower.look()
    known = scene.loader.known("e1")
    assert known is not None and known.generation == 1 and scene.loader.state("e1") == "evicted"
    assert "wrongly" in scene.health.report()["endpoints"]["e1"]["refused"]["why"]
    # The policy before answers, from the copy, though the store is away.
    scene.store.error = StoreError("away")
    scene.ask("e1")
    assert scene.router.endpoints["e1"].generation == 1
    scene.store.error = None
    scene.store.set("e1", "good")
    scene.follower.look()
    assert scene.router.endpoints["e1"].generation == 3 and scene.loader.state("e2") == "evicted"
    # Copies of what is evicted, and of what served before, are kept.
    assert {digest(name) for name in NAMES} | {digest("good")} <= set(scene.shelf.bundles)


def test_a_load_that_fails_is_said_and_tried_again_later(make: Callable[..., Scene]) -> None:
    scene = make()
    scene.follower.look()
    scene.bad[digest("e1")] = ReleaseError("damaged")
    scene.ask("e1")
    trouble = scene.follower.trouble("e1")
    assert trouble is not None and trouble.status == 503 and "damaged" in str(trouble)
    assert scene.loader.state("e1") == "failed" and not scene.health.endpoint_ready("e1")
    assert scene.health.ready, "one that failed later does not take the service away"
    scene.bad.clear()
    scene.clock.advance(RETRY_SECONDS)
    assert scene.follower.trouble("e1") is None
    scene.ask("e1")
    assert scene.loader.state("e1") == "ready" and not scene.follower.refused


def test_what_cannot_be_fetched_is_tried_again_soon(make: Callable[..., Scene]) -> None:
    scene = make()
    scene.store.error = StoreError("away")
    scene.follower.look()
    trouble = scene.follower.trouble("e1")
    assert trouble is not None and "does not answer" in str(trouble)
    scene.store.error = None
    scene.follower.look()
    scene.shelf.bundles.clear()
    scene.store.error = StoreError("away")
    scene.ask("e1")
    assert scene.loader.state("e1") == "failed"
    scene.store.error = None
    scene.clock.advance(STORE_RETRY_SECONDS)
    scene.ask("e1")
    assert scene.loader.state("e1") == "ready"


def test_what_changed_while_it_was_loaded_is_thrown_away(make: Callable[..., Scene]) -> None:
    scene = make()
    scene.follower.look()
    scene.gate.clear()
    scene.entered.clear()
    scene.follower.want("e1")
    assert scene.entered.wait(10)
    scene.loader.drop("e1")
    scene.gate.set()
    assert until(lambda: scene.loads[-1] == "e1")
    assert until(lambda: scene.loader.state("e1") == "unknown")
    assert "e1" not in scene.router.endpoints
