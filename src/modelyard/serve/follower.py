"""Keeps what is served equal to what the store says, and serving when the store says nothing.

One thread asks the store a few times a second which endpoints it has written of since. A new policy is
taken over only when every release that it names has been fetched, verified, copied to disk, loaded, proved
against its training-time answers and warmed; the swap itself is one assignment. Whatever fails before
leaves the old policy in force, and the reason in the health report, the log and the metrics. Of endpoints
that are not loaded at the start only the policy is known, until a request asks for them.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping

from modelyard.core.clock import Clock, iso
from modelyard.core.errors import ModelyardError, RequestError, StoreError
from modelyard.serve.loader import Loader, Refused, State, Why
from modelyard.serve.metrics import Metrics
from modelyard.serve.shelf import Shelf
from modelyard.serve.source import Source

COPY_SECONDS = 0.010
"""Time at each look for copies of what was never loaded: a thousand endpoints take some minutes."""

_LOG = logging.getLogger("modelyard.serve")


class Follower:
    """Follows the store for some endpoints. `start` is called once; all else is read from any thread.

    The first `eager` endpoints and those that are `pinned` are loaded at the start, and whenever their
    policy changes; a change of policy is proved by loading it for the others too.
    """

    def __init__(
        self,
        endpoints: tuple[str, ...],
        loader: Loader,
        shelf: Shelf,
        source: Source,
        *,
        metrics: Metrics,
        clock: Clock,
        poll: float,
        eager: int = 64,
        pinned: frozenset[str] = frozenset(),
        wanted: Callable[[], tuple[str, ...]] | None = None,
    ) -> None:
        self.endpoints = endpoints
        """What is followed now."""
        self.base = frozenset(endpoints)
        """What was followed from the start."""
        self._wanted = wanted
        self._loader = loader
        self._router = loader.router
        self._shelf = shelf
        self._source = source
        self._metrics = metrics
        self._clock = clock
        self._poll = poll
        self._eager = eager
        self._pinned = pinned
        self._early = pinned | frozenset(endpoints[:eager])
        self._pending = set(endpoints)
        self._stop = threading.Event()
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._work, name="follower", daemon=True)
        self.asked = False
        self.store_error: str | None = "the store has not been asked yet"
        self.store_since = iso(clock.now())

    @property
    def refused(self) -> Mapping[str, Refused]:
        """What is not served, and why."""
        return self._loader.refused

    def restore(self) -> None:
        """Serves what was served last, from disk; endpoints that fail wait for the store."""
        self._choose()
        kept = {name: found for name in self.endpoints if (found := self._shelf.policy(name)) is not None}
        for name, (generation, policy) in kept.items():
            if name not in self._early:
                self._loader.learn(name, generation, policy, copied=True)
                continue
            try:
                self._loader.take_over(name, generation, policy, from_store=False, why="start")
                _LOG.info("endpoint %s serves generation %d from its own copy", name, generation)
            except ModelyardError as error:
                _LOG.warning("endpoint %s cannot serve from its own copy: %s", name, error)

    def start(self) -> None:
        """Begins to follow, and to load what is asked for."""
        self._thread.start()
        self._loader.start()

    def stop(self) -> None:
        """Ends following; what is served stays."""
        self._stop.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join()
        self._loader.stop()
        self._source.close()

    def wake(self) -> None:
        """Looks at once, not after the rest of the pause."""
        self._wake.set()

    def want(self, name: str, why: Why = "request") -> None:
        """Has an endpoint loaded, now or as soon as its policy is known."""
        self._loader.want(name, why)
        if self._loader.known(name) is None:
            self.wake()

    def state(self, name: str) -> State:
        """Where an endpoint stands."""
        return self._loader.state(name)

    def trouble(self, name: str) -> RequestError | None:
        """Why it is no use to wait for an endpoint now."""
        if self.store_error is not None and self.asked and self._loader.known(name) is None:
            return RequestError("the endpoint is not loaded, and the store does not answer", status=503,
                                value=name, fix="see /v2/health for the reason", retry_after=1.0)  # fmt: skip
        return self._loader.trouble(name)

    def met(self, name: str) -> bool:
        """Whether an endpoint's readiness is given: it was served once, or may be when it is asked for."""
        known = self._loader.known(name)
        return known is not None and (known.proved or name not in self._early)

    def look(self) -> None:
        """Looks once for what has changed; never raises."""
        self._choose()
        try:
            changed = self._source.changed()
        except Exception as error:  # a database driver's own too; following must go on.
            self._store_answered(error)
            return
        self._store_answered(None)
        now = self._clock.monotonic()
        self._pending |= changed.intersection(self.endpoints)
        self._pending |= {name for name, refused in self.refused.items() if now >= refused.retry}
        if self._pending and not self._look_at_all(
            [name for name in self.endpoints if name in self._pending]
        ):
            return
        self._copy()

    def _work(self) -> None:
        while not self._stop.is_set():
            self.look()
            self._loader.tidy()
            self._wake.wait(self._poll)
            self._wake.clear()

    def _choose(self) -> None:
        """Begins to follow what is wanted from now on, and stops serving what is not."""
        names = self.endpoints if self._wanted is None else self._wanted()
        if names == self.endpoints:
            return
        before = set(self.endpoints)
        gone = before.difference(names)
        self._router.expect(names)
        self.endpoints = names
        self._early = self._pinned | frozenset(names[: self._eager])
        self._pending = (self._pending - gone) | set(names).difference(before)
        for name in gone:
            self._loader.drop(name)
            _LOG.info("endpoint %s is unloaded", name)

    def _look_at_all(self, names: list[str]) -> bool:
        """Looks at some endpoints; `False` when the store stopped to answer meanwhile."""
        # What is new is known at once, so that a request for one does not wait for the others' loading.
        if not all(self._tried(self._meet, name) for name in names):
            return False
        before = self._loader.taken
        for name in names:
            if not self._tried(self._look_at, name):
                return False
            self._pending.discard(name)
        if self._loader.taken != before:
            self._shelf.keep(self._loader.kept())
        return True

    def _tried(self, look_at: Callable[[str], None], name: str) -> bool:
        try:
            look_at(name)
        except StoreError as error:
            self._store_answered(error)
            return False
        except ModelyardError as error:
            # The store answers, and says that there is no such endpoint, say.
            self._loader.refuse(name, 0, error)
        except Exception as error:  # a database driver's own; following must go on.
            self._store_answered(error)
            return False
        return True

    def _meet(self, name: str) -> None:
        if self._loader.known(name) is None:
            self._loader.learn(name, *self._source.policy(name))

    def _look_at(self, name: str) -> None:
        """Takes over what the store says of an endpoint, unless it is in force or was refused just now."""
        loader = self._loader
        generation, policy = self._source.policy(name)
        refused, known = loader.refused.get(name), loader.known(name)
        if known is not None and known.generation == generation and self.met(name):
            if refused is not None and (known.proved or refused.generation != generation):
                loader.forgive(name)
            return
        if (
            refused is not None
            and refused.generation == generation
            and self._clock.monotonic() < refused.retry
        ):
            return
        if known is not None and known.generation == generation and loader.state(name) == "loading":
            return  # somebody has asked for it; if that fails it is refused, and tried again.
        why: Why = "policy" if known is not None and known.generation != generation else "start"
        try:
            loader.take_over(name, generation, policy, from_store=True, why=why)
        except StoreError:
            raise
        except Exception as error:  # whatever a bad release brings with it, the old one keeps serving.
            loader.refuse(name, generation, error)
            return
        loader.forgive(name)
        _LOG.info("endpoint %s serves generation %d: %s", name, generation, policy.to_json())

    def _copy(self) -> None:
        try:
            self._loader.copy_some(COPY_SECONDS)
        except StoreError as error:
            self._store_answered(error)
        except Exception as error:  # a bad release is refused when it is loaded.
            _LOG.warning("a release is not copied: %s", error)

    def _store_answered(self, error: Exception | None) -> None:
        text = None if error is None else str(error)
        if (text is None) != (self.store_error is None):
            self.store_since = iso(self._clock.now())
            if text is not None:
                _LOG.warning("the store does not answer, serving goes on without it: %s", text)
            else:
                _LOG.info("the store answers")
        first = not self.asked
        self.store_error = text
        self.asked = True
        self._metrics.store_up.at().set(0.0 if error else 1.0)
        if first and text is not None:
            # Who waits for an endpoint of which nothing is known hears that now.
            for name in self.endpoints:
                self._loader.arrived(name)
