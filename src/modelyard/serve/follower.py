"""Keeps what is served equal to what the store says, and serving when the store says nothing.

One thread looks at each endpoint's generation a few times a second. A new policy is taken over only when
every release that it names has been fetched, verified, copied to disk, loaded, proved against its
training-time answers and warmed; the swap itself is one assignment. Whatever fails before leaves the old
policy in force, and the reason in the health report, the log and the metrics.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from modelyard.core.clock import Clock, iso
from modelyard.core.digest import Digest
from modelyard.core.errors import ModelyardError, StoreError
from modelyard.release.load import load_release
from modelyard.release.policy import Policy
from modelyard.serve.metrics import Metrics
from modelyard.serve.pool import Served
from modelyard.serve.router import Endpoint, Router
from modelyard.serve.shelf import Shelf
from modelyard.serve.source import Source

if TYPE_CHECKING:
    from modelyard.release.load import LoadedRelease

_LOG = logging.getLogger("modelyard.serve")

RETRY_SECONDS = 10.0
"""A policy that was refused is tried again after this long: the cause may have been a full disk."""

MakeReady = Callable[[str, "LoadedRelease"], Served]
"""Loads, proves and warms a release for an endpoint; raises `ModelyardError`."""


@dataclass(frozen=True, slots=True)
class Refused:
    """A policy that was not taken over, since when and why."""

    generation: int
    since: str
    why: str
    retry: float


class Follower:
    """Follows the store for some endpoints. `start` is called once; all else is read from any thread."""

    def __init__(
        self,
        endpoints: tuple[str, ...],
        router: Router,
        shelf: Shelf,
        source: Source,
        *,
        make_ready: MakeReady,
        metrics: Metrics,
        clock: Clock,
        poll: float,
        wanted: Callable[[], tuple[str, ...]] | None = None,
    ) -> None:
        self.endpoints = endpoints
        """What is followed now."""
        self.base = frozenset(endpoints)
        """What was followed from the start."""
        self._wanted = wanted
        self._router = router
        self._shelf = shelf
        self._source = source
        self._make_ready = make_ready
        self._metrics = metrics
        self._clock = clock
        self._poll = poll
        self._stop = threading.Event()
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._work, name="follower", daemon=True)
        self.refused: Mapping[str, Refused] = {}
        self.asked = False
        self.store_error: str | None = "the store has not been asked yet"
        self.store_since = iso(clock.now())

    def restore(self) -> None:
        """Serves what was served last, from disk; endpoints that fail wait for the store."""
        self._choose()
        for name in self.endpoints:
            kept = self._shelf.policy(name)
            if kept is None:
                continue
            try:
                self._take_over(name, *kept, from_store=False)
                _LOG.info("endpoint %s serves generation %d from its own copy", name, kept[0])
            except ModelyardError as error:
                _LOG.warning("endpoint %s cannot serve from its own copy: %s", name, error)

    def start(self) -> None:
        """Begins to follow."""
        self._thread.start()

    def stop(self) -> None:
        """Ends following; what is served stays."""
        self._stop.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join()
        self._source.close()

    def wake(self) -> None:
        """Looks at once, not after the rest of the pause."""
        self._wake.set()

    def look(self) -> None:
        """Looks once at every endpoint; never raises."""
        self._choose()
        for name in self.endpoints:
            try:
                self._look_at(name)
                self._store_answered(None)
            except StoreError as error:
                self._store_answered(error)
                return
            except ModelyardError as error:
                # The store answers, and says that there is no such endpoint, say.
                self._store_answered(None)
                self._refuse(name, 0, error)
            except Exception as error:  # a database driver's own; following must go on.
                self._store_answered(error)
                return

    def _work(self) -> None:
        while not self._stop.is_set():
            self.look()
            self._wake.wait(self._poll)
            self._wake.clear()

    def _choose(self) -> None:
        """Begins to follow what is wanted from now on, and stops serving what is not."""
        names = self.endpoints if self._wanted is None else self._wanted()
        if names == self.endpoints:
            return
        gone = set(self.endpoints) - set(names)
        self._router.expect(names)
        self.endpoints = names
        for name in gone:
            self._router.drop(name)
            self._forgive(name)
            self._metrics.generation.forget(name)
            _LOG.info("endpoint %s is unloaded", name)

    def _look_at(self, name: str) -> None:
        generation, policy = self._source.policy(name)
        served = self._router.endpoints.get(name)
        if served is not None and served.generation == generation:
            self._forgive(name)
            return
        refused = self.refused.get(name)
        now = self._clock.monotonic()
        if refused is not None and refused.generation == generation and now < refused.retry:
            return
        try:
            self._take_over(name, generation, policy, from_store=True)
        except StoreError:
            raise
        except Exception as error:  # whatever a bad release brings with it, the old one keeps serving.
            self._refuse(name, generation, error)
            return
        self._forgive(name)
        _LOG.info("endpoint %s serves generation %d: %s", name, generation, policy.to_json())

    def _take_over(self, name: str, generation: int, policy: Policy, *, from_store: bool) -> None:
        old = self._router.endpoints.get(name)
        releases: dict[Digest, Served] = {}
        for digest in policy.releases:
            kept = None if old is None else old.releases.get(digest)
            releases[digest] = kept or self._load(name, digest, from_store=from_store)
        if from_store:
            self._shelf.route(name, generation, policy)
        self._router.swap(Endpoint(name, generation, policy, releases))
        self._metrics.generation.at(name).set(generation)
        self._metrics.swaps.at(name).add()
        if from_store:
            self._shelf.keep({digest for item in self._router.endpoints.values() for digest in item.releases}
                             | (set() if old is None else set(old.releases)))  # fmt: skip

    def _load(self, name: str, digest: Digest, *, from_store: bool) -> Served:
        bundle = self._shelf.bundle(digest)
        if bundle is None:
            if not from_store:
                raise StoreError("the copy of a release is missing or damaged", value=digest)
            self._shelf.put(self._source.fetch(digest))
            bundle = self._shelf.bundle(digest)
            if bundle is None:
                raise StoreError("the copy of a release cannot be read back", value=digest)
        return self._make_ready(name, load_release(bundle))

    def _refuse(self, name: str, generation: int, error: Exception) -> None:
        known = self.refused.get(name)
        again = known is not None and known.generation == generation
        since = known.since if known is not None and again else iso(self._clock.now())
        retry = self._clock.monotonic() + RETRY_SECONDS
        self.refused = {**self.refused, name: Refused(generation, since, str(error), retry)}
        if not again:
            self._metrics.refused.at(name).add()
            _LOG.error("endpoint %s does not take over generation %d: %s", name, generation, error)

    def _forgive(self, name: str) -> None:
        if name in self.refused:
            self.refused = {key: value for key, value in self.refused.items() if key != name}

    def _store_answered(self, error: Exception | None) -> None:
        text = None if error is None else str(error)
        if (text is None) != (self.store_error is None):
            self.store_since = iso(self._clock.now())
            if text is not None:
                _LOG.warning("the store does not answer, serving goes on without it: %s", text)
            else:
                _LOG.info("the store answers")
        self.store_error = text
        self.asked = True
        self._metrics.store_up.at().set(0.0 if error else 1.0)
