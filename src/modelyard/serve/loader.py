"""Brings endpoints into memory and takes them out: for a new policy, for a request, as the memory allows.

What is known of an endpoint (its policy, where its bundles are) stays when it is taken out. A thread loads
what requests wait for; new policies are proved on the thread of whoever follows the store, so that neither
waits for the other. What was loaded for a policy that has changed meanwhile is thrown away.
"""

from __future__ import annotations

import gc
import logging
import threading
from collections import deque
from collections.abc import Callable, Collection, Hashable, Mapping
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Literal, TypeAlias

from modelyard.core.clock import Clock, iso
from modelyard.core.digest import Digest
from modelyard.core.errors import ModelyardError, RequestError, StoreError
from modelyard.release.bundle import Bundle
from modelyard.release.load import load_release
from modelyard.release.policy import Policy
from modelyard.serve.memory import give_back
from modelyard.serve.metrics import Metrics
from modelyard.serve.pool import Served
from modelyard.serve.residency import Residency
from modelyard.serve.router import Endpoint, Router
from modelyard.serve.shelf import Shelf
from modelyard.serve.source import Source

if TYPE_CHECKING:
    from modelyard.release.load import LoadedRelease

_LOG = logging.getLogger("modelyard.serve")

RETRY_SECONDS = 10.0
"""A policy that was refused is tried again after this long: the cause may have been a full disk."""
STORE_RETRY_SECONDS = 1.0
"""The same for what could not be fetched, because the store did not answer."""
GIVE_BACK_SECONDS = 3.0
"""Freed memory goes back to the machine at most so often: the C library's heaps are locked meanwhile."""

MakeReady: TypeAlias = Callable[[str, "LoadedRelease"], Served]
"""Loads, proves and warms a release for an endpoint; raises `ModelyardError`."""
Why: TypeAlias = Literal["start", "policy", "request", "operator"]
State: TypeAlias = Literal["ready", "loading", "cold", "evicted", "failed", "unknown"]


@dataclass(frozen=True, slots=True)
class Known:
    """A policy that is in force; `proved` once its releases have been loaded here and answered rightly."""

    generation: int
    policy: Policy
    proved: bool = False


@dataclass(frozen=True, slots=True)
class Refused:
    """A policy that was not taken over, since when and why."""

    generation: int
    since: str
    why: str
    retry: float


class Loader:
    """Loads and evicts. Its methods may be called from any thread."""

    def __init__(
        self,
        router: Router,
        shelf: Shelf,
        source: Source,
        *,
        make_ready: MakeReady,
        metrics: Metrics,
        clock: Clock,
        residency: Residency | None = None,
    ) -> None:
        self.router = router
        self._shelf = shelf
        self._source = source
        self._make_ready = make_ready
        self._metrics = metrics
        self._clock = clock
        self._residency = Residency() if residency is None else residency
        self._changing = threading.RLock()
        self._known: dict[str, Known] = {}
        self._before: dict[str, tuple[Digest, ...]] = {}
        self._ran: dict[str, float] = {}
        self._sizes: dict[Digest, int] = {}
        self._queue: dict[str, Why] = {}
        self._unknown: dict[str, Why] = {}
        self._uncopied: deque[str] = deque()
        self._loading: str | None = None
        self._taking: dict[str, int] = {}
        self._work_left = threading.Condition()
        self._stopping = False
        self._freed = False
        self._given_back = 0.0
        self._thread = threading.Thread(target=self._work, name="loader", daemon=True)
        self.refused: Mapping[str, Refused] = {}
        self.taken = 0
        """How many policies were taken over from the store."""
        self.in_use: Callable[[str], bool] = lambda name: False
        """Whether an endpoint has calls open, or requests that wait for it; called from any thread."""
        self.arrived: Callable[[str], None] = lambda name: None
        """Told after a load that was asked for has ended, well or not."""
        self.gone: Callable[[Endpoint], None] = lambda endpoint: None
        """Told of an endpoint that left memory or was replaced, so that nobody holds on to it."""

    def start(self) -> None:
        """Begins to load what is asked for."""
        self._thread.start()

    def stop(self) -> None:
        """Ends after the load in work; what is in memory stays."""
        with self._work_left:
            self._stopping = True
            self._work_left.notify()
        if self._thread.is_alive():
            self._thread.join()

    def known(self, name: str) -> Known | None:
        """The policy in force, `None` when none is known yet."""
        return self._known.get(name)

    def state(self, name: str) -> State:
        """Where an endpoint stands."""
        if name in self.router.endpoints:
            return "ready"
        if name in self._queue or name == self._loading or name in self._taking:
            return "loading"
        if self._failed(name) is not None:
            return "failed"
        known = self._known.get(name)
        if known is None:
            return "unknown"
        return "evicted" if known.proved else "cold"

    def trouble(self, name: str) -> RequestError | None:
        """Why it is no use to wait for an endpoint now; `None` when it may be loaded."""
        refused = self._failed(name)
        left = 0.0 if refused is None else refused.retry - self._clock.monotonic()
        if refused is None or left <= 0:
            return None
        return RequestError("the endpoint cannot be served", status=503, value=name, rule=refused.why,
                            fix="see /v2/health", retry_after=max(1.0, left))  # fmt: skip

    def learn(self, name: str, generation: int, policy: Policy, *, copied: bool = False) -> None:
        """An endpoint that was not known has this policy; it is loaded when somebody asks for it."""
        with self._changing:
            self._known[name] = Known(generation, policy)
        if not copied:
            self._uncopied.append(name)
        if name in self._unknown:
            self.want(name, self._unknown.pop(name))

    def copy_some(self, seconds: float) -> None:
        """Copies releases that were never loaded here, for so long: they must not need the store later.

        Raises `StoreError` when the store does not answer, `ModelyardError` for a release that is bad.
        """
        until = perf_counter() + seconds
        while self._uncopied and perf_counter() < until:
            name = self._uncopied[0]
            known = self._known.get(name)
            try:
                if known is not None and not known.proved:
                    for digest in known.policy.releases:
                        if not self._shelf.has(digest):
                            self._shelf.put(self._source.fetch(digest))
                    self._shelf.route(name, known.generation, known.policy)
            except StoreError:
                raise
            except Exception:
                self._uncopied.popleft()
                raise
            self._uncopied.popleft()

    def want(self, name: str, why: Why = "request") -> None:
        """Has an endpoint loaded; however often it is asked for, once. `arrived` says when that is done."""
        with self._work_left:
            self._queue.setdefault(name, why)
            self._work_left.notify()

    def take_over(self, name: str, generation: int, policy: Policy, *, from_store: bool, why: Why) -> None:
        """Serves an endpoint by a policy once all of its releases are copied, loaded and proved.

        Raises what fails; the policy before stays in force then.
        """
        self._taking[name] = generation
        try:
            self._take_over(name, generation, policy, from_store=from_store, why=why)
        finally:
            del self._taking[name]
            self.arrived(name)

    def _take_over(self, name: str, generation: int, policy: Policy, *, from_store: bool, why: Why) -> None:
        began = perf_counter()
        releases = self._releases(name, policy, from_store=from_store, fresh=None)
        if from_store:
            self._shelf.route(name, generation, policy)
        with self._changing:
            before = self._known.get(name)
            if before is not None and before.generation != generation:
                self._before[name] = before.policy.releases
            self._known[name] = Known(generation, policy, proved=True)
            self._admit(Endpoint(name, generation, policy, releases), why, perf_counter() - began)
        self.taken += from_store
        self._metrics.swaps.at(name).add()

    def drop(self, name: str) -> None:
        """Forgets an endpoint that is not wanted any more."""
        with self._changing:
            self._known.pop(name, None)
            self._before.pop(name, None)
            self._unknown.pop(name, None)
            self.forgive(name)
            self._evict(name, "unloaded")
        self._metrics.generation.forget(name)
        self.arrived(name)

    def kept(self) -> Collection[Digest]:
        """The releases whose copies are needed: all that are in force, resident or not, and those before."""
        with self._changing:
            policies = [known.policy.releases for known in self._known.values()]
            return {digest for releases in (*policies, *self._before.values()) for digest in releases}

    def refuse(self, name: str, generation: int, error: Exception) -> None:
        """Notes why a policy is not served."""
        with self._changing:
            known = self.refused.get(name)
            again = known is not None and known.generation == generation
            since = known.since if known is not None and again else iso(self._clock.now())
            away = isinstance(error, StoreError)
            retry = self._clock.monotonic() + (STORE_RETRY_SECONDS if away else RETRY_SECONDS)
            self.refused = {**self.refused, name: Refused(generation, since, str(error), retry)}
        if not again:
            self._metrics.refused.at(name).add()
            _LOG.error("endpoint %s does not take over generation %d: %s", name, generation, error)
        self.arrived(name)

    def forgive(self, name: str) -> None:
        """Forgets why an endpoint was refused."""
        with self._changing:
            if name in self.refused:
                self.refused = {key: value for key, value in self.refused.items() if key != name}

    def tidy(self) -> None:
        """Evicts what was in use when its memory was needed, and gives freed memory back; never raises."""
        with self._changing:
            self._make_room()
        now = self._clock.monotonic()
        if self._freed and now >= self._given_back + GIVE_BACK_SECONDS:
            self._freed, self._given_back = False, now
            # What a model leaves in cycles outlived the young generations while it was served.
            gc.collect()
            give_back()

    def _work(self) -> None:
        while True:
            with self._work_left:
                while not self._queue and not self._stopping:
                    self._work_left.wait()
                if self._stopping:
                    return
                name = next(iter(self._queue))
                self._loading, why = name, self._queue.pop(name)
            try:
                self._bring(name, why)
            except Exception as error:  # whatever a bad release brings with it.
                known = self._known.get(name)
                self.refuse(name, 0 if known is None else known.generation, error)
            finally:
                self._loading = None
                self.arrived(name)

    def _failed(self, name: str) -> Refused | None:
        """Why what is in force cannot be loaded; a newer policy that was refused is none of that."""
        refused, known = self.refused.get(name), self._known.get(name)
        here = refused is not None and (known is None or known.generation == refused.generation)
        return refused if here else None

    def _bring(self, name: str, why: Why) -> None:
        known = self._known.get(name)
        if known is None and self._failed(name) is None:
            # The store was not asked yet: it is loaded as soon as its policy is known.
            self._unknown[name] = why
            known = self._known.get(name)
        if known is None or name in self.router.endpoints or self._taking.get(name) == known.generation:
            return
        began = perf_counter()
        fresh: list[Bundle] = []
        releases = self._releases(name, known.policy, from_store=True, fresh=fresh)
        with self._changing:
            if self._known.get(name) is not known or name in self.router.endpoints:
                return
            self._known[name] = Known(known.generation, known.policy, proved=True)
            self._admit(Endpoint(name, known.generation, known.policy, releases), why, perf_counter() - began)
            self.forgive(name)
        self.arrived(name)
        # Requests wait for the load: what only the next start needs is written after it.
        if fresh:
            self._copy(name, known, fresh)

    def _copy(self, name: str, known: Known, fresh: list[Bundle]) -> None:
        try:
            for bundle in fresh:
                self._shelf.put(bundle)
            self._shelf.route(name, known.generation, known.policy)
        except ModelyardError as error:
            _LOG.warning("endpoint %s is served without a copy on disk: %s", name, error)

    def _releases(
        self, name: str, policy: Policy, *, from_store: bool, fresh: list[Bundle] | None
    ) -> dict[Digest, Served]:
        """A policy's releases, ready; what is fetched goes to the shelf first, or into `fresh`."""
        old = self.router.endpoints.get(name)
        releases: dict[Digest, Served] = {}
        for digest in policy.releases:
            kept = None if old is None else old.releases.get(digest)
            releases[digest] = kept or self._load(name, digest, from_store=from_store, fresh=fresh)
        return releases

    def _load(self, name: str, digest: Digest, *, from_store: bool, fresh: list[Bundle] | None) -> Served:
        bundle = self._shelf.bundle(digest)
        if bundle is None:
            if not from_store:
                raise StoreError("the copy of a release is missing or damaged", value=digest)
            bundle = self._source.fetch(digest)
            if fresh is not None:
                fresh.append(bundle)
            else:
                self._shelf.put(bundle)
                bundle = self._shelf.bundle(digest)
                if bundle is None:
                    raise StoreError("the copy of a release cannot be read back", value=digest)
        with self._changing:
            # Room is made before it is taken, by what the release held the last time.
            self._make_room(self._sizes.get(digest, 0), keep=name)
        made = self._make_ready(name, load_release(bundle))
        self._sizes[digest] = made.bytes
        return made

    def _admit(self, endpoint: Endpoint, why: Why, seconds: float) -> None:
        name, metrics = endpoint.name, self._metrics
        parts: dict[Hashable, int] = {
            id(served.session): served.bytes for served in endpoint.releases.values()
        }
        self._residency.admit(name, parts, seconds)
        self._ran[name] = _ran(endpoint)
        old = self.router.endpoints.get(name)
        self.router.swap(endpoint)
        if old is not None:
            self.gone(old)
            self._freed = True
        self._make_room(keep=name)
        metrics.generation.at(name).set(endpoint.generation)
        metrics.loads.at(why).add()
        metrics.load_seconds.at().observe(seconds)
        self._count()

    def _make_room(self, room: int = 0, keep: str | None = None) -> None:
        residency = self._residency
        if residency.bytes + room <= residency.budget:
            return
        for name, endpoint in self.router.endpoints.items():
            ran = _ran(endpoint)
            if ran != self._ran.get(name):
                self._ran[name] = ran
                residency.use(name)
        for name in residency.make_room(room, in_use=self.in_use, keep=keep):
            self._evict(name, "memory")

    def _evict(self, name: str, why: Literal["memory", "unloaded"]) -> None:
        endpoint = self.router.endpoints.get(name)
        self._residency.remove(name)
        self._ran.pop(name, None)
        if endpoint is None:
            return
        self.router.drop(name)
        self.gone(endpoint)
        self._metrics.evictions.at(why).add()
        self._freed = True
        self._count()
        _LOG.info("endpoint %s is out of memory: %s", name, why)

    def _count(self) -> None:
        self._metrics.resident.at().set(len(self._residency))
        self._metrics.resident_bytes.at().set(self._residency.bytes)


def _ran(endpoint: Endpoint) -> float:
    return sum(served.runs.total for served in endpoint.releases.values())
