"""What the service says of itself over HTTP: metadata, health, metrics, the index, its OpenAPI."""

from __future__ import annotations

import os
from typing import Any, Protocol

import orjson

from modelyard.core.errors import RequestError
from modelyard.core.names import did_you_mean
from modelyard.serve.codec.document import read_object
from modelyard.serve.codec.inference import write_metadata
from modelyard.serve.exchange import Written
from modelyard.serve.health import Health
from modelyard.serve.metrics import Metrics
from modelyard.serve.model_facts import PLATFORM, Statistics, model_config
from modelyard.serve.openapi import openapi
from modelyard.serve.options import Limits
from modelyard.serve.pool import Served
from modelyard.serve.router import Endpoint, Router

TEXT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
EXTENSIONS = ("binary_tensor_data", "model_repository", "model_configuration", "statistics")


class Board(Protocol):
    """What the workers of a service say of themselves, brought together."""

    def text(self) -> bytes: ...

    def report(self) -> dict[str, Any]: ...


class Describer:
    """Answers GET requests. With `guarded` the two probes, which need no token, say only yes or no.

    With a `board` the metrics are those of all workers, else of this process.
    """

    def __init__(
        self,
        router: Router,
        health: Health,
        metrics: Metrics,
        *,
        version: str,
        limits: Limits,
        guarded: bool,
        board: Board | None = None,
    ) -> None:
        self._router = router
        self._health = health
        self._metrics = metrics
        self._version = version
        self._limits = limits
        self._guarded = guarded
        self._statistics = Statistics(router, metrics)
        self._board = board
        self._counted: set[str] = set()
        self._described: tuple[int, bytes] | None = None
        metrics.before(self._count_waiting)

    def tell(self, parts: list[str]) -> tuple[int, Written]:
        """Status and body; raises `RequestError` 404 for what is not here."""
        match parts:
            case ["", "metrics"]:
                text = self._metrics.text() if self._board is None else self._board.text()
                return 200, Written(text, TEXT_TYPE)
            case ["", "openapi.json"]:
                return 200, Written(self._openapi())
            case ["", "v2"]:
                server = {"name": "modelyard", "version": self._version, "extensions": EXTENSIONS}
                return 200, Written(orjson.dumps(server))
            case ["", "v2", "health", *rest] if len(rest) < 2:
                return self._tell_health(rest[0] if rest else "")
            case ["", "v2", "models", "stats"] if "stats" not in self._router.endpoints:
                return 200, Written(orjson.dumps({"model_stats": self._statistics.of(None)}))
            case ["", "v2", "models", name, *rest]:
                return self._tell_model(name, rest)
        raise nothing_here(parts)

    def index(self, body: bytes) -> bytes:
        """The repository's index: every version of every endpoint, and why one is not ready."""
        asked = read_object(body) if body else {}
        for name in asked:
            if name != "ready":
                raise RequestError("the field is not known", value=name, where="body",
                                   fix=did_you_mean(str(name), ("ready",)))  # fmt: skip
        only_ready = asked.get("ready", False)
        if only_ready is not True and only_ready is not False:
            raise RequestError("neither true nor false", value=only_ready, where="ready")
        listed: list[dict[str, str]] = []
        for name, state in self._health.report()["endpoints"].items():
            for release in state.get("releases", ()):
                entry = {"name": name, "version": release["version"], "state": "READY", "reason": ""}
                if self._health.draining:
                    entry |= {"state": "UNAVAILABLE", "reason": "the service is draining"}
                listed.append(entry)
            if state["state"] != "ready":
                state_name, why = not_ready(state)
                listed.append({"name": name, "version": "", "state": state_name, "reason": why})
        return orjson.dumps([item for item in listed if not only_ready or item["state"] == "READY"])

    def _tell_health(self, what: str) -> tuple[int, Written]:
        health = self._health
        if what == "live":
            return 200, Written(b'{"live":true}')
        if what == "ready":
            report: dict[str, Any] = {"ready": health.ready} if self._guarded else self._report()
            return (200 if health.ready else 503), Written(orjson.dumps(report))
        if what:
            raise nothing_here(["", "v2", "health", what])
        return 200, Written(orjson.dumps(self._report()))

    def _report(self) -> dict[str, Any]:
        alone = {"pid": os.getpid(), "workers": {"wanted": 1, "ready": int(self._health.ready)}}
        return self._health.report() | (alone if self._board is None else self._board.report())

    def _count_waiting(self) -> None:
        waiting = self._metrics.waiting
        served = {item.digest: item for item in self._served()}
        for digest, item in served.items():
            waiting.at(digest).set(item.lane.waiting)
        for digest in self._counted - served.keys():
            waiting.forget(digest)
        self._counted = set(served)

    def _tell_model(self, name: str, rest: list[str]) -> tuple[int, Written]:
        version: str | None = None
        if rest[:1] == ["versions"] and len(rest) > 1:
            version, rest = rest[1], rest[2:]
        if rest == ["ready"]:
            # A probe loads nothing, unless it is of a version: which there are stands in the releases.
            if version is not None:
                self._router.version(self._router.endpoint(name), version)
            elif name not in self._router.expected:
                self._router.endpoint(name)
            ready = self._health.endpoint_ready(name)
            return (200 if ready else 503), Written(orjson.dumps({"name": name, "ready": ready}))
        if rest == ["stats"]:
            return 200, Written(orjson.dumps({"model_stats": self._statistics.of(name, version)}))
        if rest and rest != ["config"]:
            raise nothing_here(["", "v2", "models", name, *rest])
        endpoint = self._router.endpoint(name)
        served = endpoint.champion if version is None else self._router.version(endpoint, version)
        if rest:
            return 200, Written(orjson.dumps(model_config(name, served, self._limits)))
        versions = sorted({item.version for item in endpoint.releases.values()})
        signature = served.signature
        return 200, Written(write_metadata(name, versions, PLATFORM, signature.inputs, signature.outputs))

    def _openapi(self) -> bytes:
        endpoints, changes = self._router.endpoints, self._router.changes
        if self._described is None or self._described[0] != changes:
            document = openapi(
                [(name, _facts(found)) for name, found in sorted(endpoints.items())],
                version=self._version,
                limits=self._limits,
                guarded=self._guarded,
            )
            self._described = (changes, orjson.dumps(document))
        return self._described[1]

    def _served(self) -> list[Served]:
        endpoints = list(self._router.endpoints.values())
        return [item for endpoint in endpoints for item in endpoint.releases.values()]


def not_ready(state: dict[str, Any]) -> tuple[str, str]:
    """The index's words for an endpoint that is not in memory: its state and the reason."""
    match state["state"]:
        case "failed":
            return "UNAVAILABLE", state.get("refused", {}).get("why", "")
        case "evicted":
            return "UNAVAILABLE", "out of memory; the next request loads it again"
        case "cold":
            return "UNAVAILABLE", "not loaded yet; the first request loads it"
    return "LOADING", ""


def _facts(endpoint: Endpoint) -> Served:
    return endpoint.champion


def nothing_here(parts: list[str]) -> RequestError:
    """The refusal of a path that leads nowhere."""
    return RequestError("there is nothing here", status=404, value="/".join(parts)[:200],
                        fix="see /v2, /v2/models/NAME, /predict/NAME, /openapi.json, /metrics")  # fmt: skip
