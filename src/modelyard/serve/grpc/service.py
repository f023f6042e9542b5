"""What `inference.GRPCInferenceService` says of itself and of its models: bytes in, bytes out."""

from __future__ import annotations

from typing import Any, Protocol

from modelyard.core.errors import RequestError
from modelyard.serve.describe import not_ready
from modelyard.serve.grpc.codec import read_message
from modelyard.serve.grpc.messages import METHODS, messages
from modelyard.serve.health import Health
from modelyard.serve.model_facts import CONFIG_TYPES, PLATFORM, Statistics, model_config
from modelyard.serve.options import Limits
from modelyard.serve.pool import Served
from modelyard.serve.router import Endpoint, Router

EXTENSIONS = ("model_repository", "model_configuration", "statistics")
CHANGES = ("RepositoryModelLoad", "RepositoryModelUnload")
"""The methods that `change` answers; `tell` answers the others."""


class Repository(Protocol):
    """What loads and unloads endpoints of this process; raises `RequestError` when that is not to be."""

    async def load(self, name: str) -> None: ...

    async def unload(self, name: str) -> None: ...


class InferenceService:
    """Answers all but inference. Raises `RequestError` for whatever a client sent; used on the loop."""

    def __init__(
        self,
        router: Router,
        health: Health,
        statistics: Statistics,
        *,
        limits: Limits,
        version: str,
        repository: Repository | None = None,
    ) -> None:
        self._router = router
        self._health = health
        self._statistics = statistics
        self._limits = limits
        self._version = version
        self._repository = repository

    def tell(self, method: str, data: bytes) -> bytes:
        """The answer's bytes to a question about the service; raises `RequestError`."""
        asked = read_message(METHODS[method][0], data)
        answer = messages()[METHODS[method][1]]
        match method:
            case "ServerLive":
                made = answer(live=True)
            case "ServerReady":
                made = answer(ready=self._health.ready)
            case "ModelReady":
                made = answer(ready=self._model_ready(asked))
            case "ServerMetadata":
                made = answer(name="modelyard", version=self._version, extensions=EXTENSIONS)
            case "ModelMetadata":
                made = answer(**self._metadata(asked))
            case "ModelConfig":
                made = answer(config=self._config(asked))
            case "ModelStatistics":
                told = self._statistics.of(asked.name or None, asked.version or None)
                made = answer(model_stats=told)
            case "RepositoryIndex":
                made = answer(models=self._index(asked.ready))
            case _:
                raise ValueError(f"{method} is no question")
        written: bytes = made.SerializeToString()
        return written

    async def change(self, method: str, data: bytes) -> bytes:
        """Loads or unloads an endpoint and returns when that is done; raises `RequestError`."""
        asked = read_message(METHODS[method][0], data)
        await self._change(method, asked)
        written: bytes = messages()[METHODS[method][1]]().SerializeToString()
        return written

    def _model_ready(self, asked: Any) -> bool:
        # A question loads nothing, unless it is of a version: which there are stands in the releases.
        if asked.version:
            self._router.version(self._router.endpoint(asked.name), asked.version)
        elif asked.name not in self._router.expected:
            self._router.endpoint(asked.name)
        return self._health.endpoint_ready(asked.name)

    def _metadata(self, asked: Any) -> dict[str, Any]:
        endpoint, served = self._served(asked)
        signature = served.signature
        return {
            "name": asked.name,
            "versions": sorted({item.version for item in endpoint.releases.values()}),
            "platform": PLATFORM,
            "inputs": [spec.to_json() for spec in signature.inputs],
            "outputs": [spec.to_json() for spec in signature.outputs],
        }

    def _config(self, asked: Any) -> dict[str, Any]:
        _, served = self._served(asked)
        config = model_config(asked.name, served, self._limits)
        for tensor in (*config["input"], *config["output"]):
            tensor["data_type"] = CONFIG_TYPES.index(tensor["data_type"])
        return config

    def _served(self, asked: Any) -> tuple[Endpoint, Served]:
        endpoint = self._router.endpoint(asked.name)
        return endpoint, self._router.version(endpoint, asked.version) if asked.version else endpoint.champion

    def _index(self, ready: bool) -> list[dict[str, str]]:
        listed = []
        for name, state in self._health.report()["endpoints"].items():
            versions = [release["version"] for release in state.get("releases", ())]
            listed += [{"name": name, "version": version, "state": "READY"} for version in versions]
            if state["state"] != "ready" and not ready:
                where, why = not_ready(state)
                listed.append({"name": name, "state": where, "reason": why})
        return listed

    async def _change(self, method: str, asked: Any) -> None:
        if not asked.model_name:
            raise RequestError("the model's name is missing", where="model_name")
        if asked.repository_name:
            raise RequestError("there is no such repository", status=404, value=asked.repository_name,
                               where="repository_name", fix="leave it empty")  # fmt: skip
        for name in asked.parameters:
            if name == "unload_dependents" and method == "RepositoryModelUnload":
                continue  # clients always send it; nothing here depends on another endpoint.
            # A configuration or a file sent along would be a model that nobody signed.
            raise RequestError("the parameter is not supported", value=name, where="parameters")
        if self._repository is None:
            raise RequestError("endpoints are not loaded and unloaded here", status=501, value=method,
                               fix="the service follows the store")  # fmt: skip
        change = self._repository.load if method == "RepositoryModelLoad" else self._repository.unload
        await change(asked.model_name)
