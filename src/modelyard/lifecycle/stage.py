"""A stage to rehearse on: a throw-away store with a real server before it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from modelyard.lifecycle.client import Client
from modelyard.lifecycle.service import wait_for_generation
from modelyard.measure.measurement import Verdict
from modelyard.release.bundle import Bundle
from modelyard.release.endpoint import Endpoints
from modelyard.release.key import trusted_keys
from modelyard.release.policy import Single
from modelyard.release.registry import Registry, Release
from modelyard.serve.options import ServeOptions
from modelyard.serve.service import start, stop
from modelyard.store.store import Store, open_store

ENDPOINT = "rehearsal"


@dataclass(frozen=True, slots=True)
class Stage:
    """A running service with its own store, releases and endpoint."""

    store: Store
    releases: tuple[Release, ...]
    client: Client
    endpoints: Endpoints

    def wait(self, generation: int) -> float:
        """Seconds until the service serves that generation."""
        return wait_for_generation(self.client, ENDPOINT, generation)


@contextmanager
def stage(bundles: tuple[Bundle, ...], keys: Path, *, work: Path, by: str) -> Iterator[Stage]:
    """Serves bundles from a temporary store on a free port; the first one answers. All goes afterwards.

    It stands in `work`, where what a killed run left standing is cleared first: the caller holds the lock
    of the project's store, so nobody else's stage can be there.
    """
    for left in work.glob("stage-*"):
        stop(left / "service", wait=5.0)
        shutil.rmtree(left, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix="stage-", dir=work))
    store = open_store(folder / "store")
    try:
        registry = Registry(store, trusted_keys(keys))
        releases = tuple(registry.add(bundle, by=by) for bundle in bundles)
        endpoints = Endpoints(store)
        for release in releases:
            # A stage has no requirements: its gate is passed by having none, in a ledger that is thrown away.
            gate = Verdict("infra.4", True, "a rehearsal: nobody is served")
            store.ledger.append_verdict(release.digest, gate, by=by)
        endpoints.set(ENDPOINT, Single(releases[0].digest), why="rehearsal", by=by)
        options = ServeOptions(
            state=folder / "service", root=folder / "store", endpoints=(ENDPOINT,), port=0, keys=keys
        )
        try:
            running = start(options)
            yield Stage(store, releases, Client(running.url), endpoints)
        finally:
            stop(folder / "service")
    finally:
        store.close()
        shutil.rmtree(folder, ignore_errors=True)
