"""A stage to rehearse on: a throw-away store with a real server before it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from modelyard.lifecycle.client import Client
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


@contextmanager
def stage(bundles: tuple[Bundle, ...], keys: Path, *, by: str) -> Iterator[Stage]:
    """Serves bundles from a temporary store on a free port; the last one answers. All of it goes afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="modelyard-stage-"))
    store = open_store(folder / "store")
    try:
        registry = Registry(store, trusted_keys(keys))
        releases = tuple(registry.add(bundle, by=by) for bundle in bundles)
        endpoints = Endpoints(store)
        for release in releases:
            endpoints.set(ENDPOINT, Single(release.digest), why="rehearsal", by=by)
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
