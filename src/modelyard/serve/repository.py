"""Loading and unloading endpoints while the service runs: which are wanted, and who waits for them.

What is wanted is kept in `<state>/loaded.json`, so that all workers of a service, and those that replace
them, serve the same. It begins with the endpoints of the service's options each time the service starts.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, Protocol

import orjson

from modelyard.core.clock import Clock
from modelyard.core.errors import RequestError, StoreError
from modelyard.core.files import file_lock, write_atomic
from modelyard.core.names import NAME_RULE, did_you_mean, is_name
from modelyard.serve.codec.document import read_object
from modelyard.serve.router import Router

_LOG = logging.getLogger("modelyard.serve")

FORMAT = 1
"""Version of the file; raise it when an older reader would misread a field."""

MAX_ENDPOINTS = 10_000
LOAD_SECONDS = 60.0
_PAUSE = 0.005


class Wanted:
    """The endpoints that a service is to serve. Read and changed from any thread, and by every worker."""

    def __init__(self, state: Path, endpoints: tuple[str, ...]) -> None:
        self._path = state / "loaded.json"
        self._stamp: tuple[int, int, int] | None = None
        self._names = endpoints
        self._reading = threading.Lock()

    def reset(self) -> None:
        """Forgets what was loaded and unloaded: the service starts anew."""
        self._path.unlink(missing_ok=True)

    def names(self) -> tuple[str, ...]:
        """The names as they are now; looks at the file again when it has changed, and never raises."""
        try:
            found = self._path.stat()
        except OSError:
            return self._names
        stamp = (found.st_ino, found.st_mtime_ns, found.st_size)
        with self._reading:
            if stamp != self._stamp:
                try:
                    value = orjson.loads(self._path.read_bytes())
                    if value["format"] == FORMAT:
                        self._names = tuple(name for name in value["endpoints"] if is_name(name))
                except (OSError, ValueError, KeyError, TypeError) as error:
                    _LOG.warning("the list of loaded endpoints is not read: %s", error)
                self._stamp = stamp
            return self._names

    def add(self, name: str) -> bool:
        """Wants one more; whether it was not wanted before. Raises `StoreError` when it cannot be kept."""
        return self._change(lambda names: (*names, name) if name not in names else names)

    def remove(self, name: str) -> bool:
        """Wants one less; whether it was wanted before. Raises `StoreError` when it cannot be kept."""
        return self._change(lambda names: tuple(known for known in names if known != name))

    def _change(self, change: Callable[[tuple[str, ...]], tuple[str, ...]]) -> bool:
        with file_lock(self._path.with_suffix(".lock"), wait=10.0, what="the list of loaded endpoints"):
            before = self.names()
            after = change(before)
            if after == before:
                return False
            if len(after) > MAX_ENDPOINTS:
                raise StoreError("too many endpoints are loaded", rule=f"at most {MAX_ENDPOINTS}")
            write_atomic(self._path, orjson.dumps({"format": FORMAT, "endpoints": list(after)}))
        return True


class Following(Protocol):
    """What must be known of whoever follows the store."""

    @property
    def refused(self) -> Mapping[str, Any]: ...

    @property
    def store_error(self) -> str | None: ...

    def want(self, name: str, why: Literal["operator"]) -> None: ...

    def wake(self) -> None: ...


class Repository:
    """Loads and unloads endpoints that the store knows; nothing a client sends is ever read as a model.

    The answer speaks for this process. The service's other workers follow within one look at the store.
    """

    def __init__(self, wanted: Wanted, router: Router, following: Following, clock: Clock) -> None:
        self._wanted = wanted
        self._router = router
        self._following = following
        self._clock = clock

    async def load(self, name: str) -> None:
        """Returns once the endpoint is served.

        Raises `RequestError` 404 when the store has no such endpoint, 422 when its release cannot be
        served, 503 when the store does not answer, and 504 when it takes longer than `LOAD_SECONDS`.
        """
        if not is_name(name):
            raise RequestError("the endpoint's name is wrong", status=404, value=name, rule=NAME_RULE)
        new = await self._keep(self._wanted.add, name)
        deadline = self._clock.monotonic() + LOAD_SECONDS
        self._following.wake()
        self._following.want(name, "operator")
        while name not in self._router.endpoints:
            refused = self._following.refused.get(name)
            if refused is not None or self._following.store_error is not None:
                if new:
                    await self._keep(self._wanted.remove, name)
                raise _not_loaded(name, refused, self._following.store_error)
            if self._clock.monotonic() > deadline:
                raise RequestError("the endpoint is still loading", status=504, value=name,
                                   rule=f"within {LOAD_SECONDS:g} s", fix="see /v2/health")  # fmt: skip
            await asyncio.sleep(_PAUSE)

    async def unload(self, name: str) -> None:
        """Returns once the endpoint is not served any more; raises `RequestError` 404 when it never was."""
        if name not in self._router.endpoints and name not in self._wanted.names():
            raise RequestError("there is no such endpoint", status=404, value=name,
                               fix=did_you_mean(name, self._wanted.names()))  # fmt: skip
        await self._keep(self._wanted.remove, name)
        self._following.wake()
        deadline = self._clock.monotonic() + LOAD_SECONDS
        while name in self._router.endpoints and self._clock.monotonic() < deadline:
            await asyncio.sleep(_PAUSE)

    async def _keep(self, change: Callable[[str], bool], name: str) -> bool:
        try:
            return await asyncio.to_thread(change, name)
        except StoreError as error:
            raise RequestError(error.what, status=503, value=error.value, rule=error.rule,
                               retry_after=5.0) from error  # fmt: skip


def _not_loaded(name: str, refused: Any, store_error: str | None) -> RequestError:
    if refused is None:
        return RequestError("the store does not answer, nothing can be loaded", status=503, value=store_error,
                            retry_after=5.0)  # fmt: skip
    if refused.generation == 0:
        return RequestError("the store has no such endpoint", status=404, value=name, rule=refused.why)
    return RequestError("the endpoint cannot be served", status=422, value=name, rule=refused.why)


def check_change(body: bytes) -> None:
    """The body of a load or unload: nothing in it may name what is to be loaded."""
    if not body:
        return
    for key, value in read_object(body).items():
        fine = key == "parameters" and type(value) is dict and value.keys() <= {"unload_dependents"}
        if not fine or any(type(flag) is not bool for flag in value.values()):
            raise RequestError("the field is not supported", value=key[:64], where="body",
                               rule="an endpoint is loaded as the store has it, signed")  # fmt: skip
