"""The methods of `inference.GRPCInferenceService` over the plane: bytes in, bytes out, no gRPC engine."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from math import inf
from typing import Any, Protocol

from modelyard.core.clock import Clock
from modelyard.core.errors import ModelyardError, RequestError
from modelyard.core.spec import Tensors
from modelyard.serve.grpc.codec import InferAsked, read_infer, read_message, write_infer
from modelyard.serve.grpc.messages import METHODS, messages
from modelyard.serve.health import Health
from modelyard.serve.metrics import Metrics
from modelyard.serve.options import Limits
from modelyard.serve.plane import Answer, Plane, Question, check_outputs
from modelyard.serve.router import Endpoint

PLATFORM = "onnxruntime_onnx"


class Repository(Protocol):
    """What loads and unloads endpoints of this process; raises `RequestError` when that is not to be."""

    async def load(self, name: str) -> None: ...

    async def unload(self, name: str) -> None: ...


class InferenceService:
    """Answers one method at a time. Raises `RequestError` for whatever a client sent; used on the loop.

    `seen` hears each request's id, for feedback that comes later.
    """

    def __init__(
        self,
        plane: Plane,
        health: Health,
        metrics: Metrics,
        clock: Clock,
        *,
        limits: Limits,
        version: str,
        seen: Callable[[str], None],
        repository: Repository | None = None,
    ) -> None:
        self._plane = plane
        self._router = plane.router
        self._health = health
        self._metrics = metrics
        self._clock = clock
        self._limits = limits
        self._version = version
        self._seen = seen
        self._repository = repository

    async def call(self, method: str, data: bytes, seconds: float | None = None) -> bytes:
        """The answer's bytes to a request's bytes; the caller waits for it so many `seconds` at most.

        When the caller is cancelled, its work is dropped unless it has begun.
        """
        if method == "ModelInfer":
            return await self._infer(data, seconds)
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
                made = answer(name="modelyard", version=self._version, extensions=["model_repository"])
            case "ModelMetadata":
                made = answer(**self._metadata(asked))
            case "RepositoryIndex":
                made = answer(models=self._index(asked.ready))
            case _:
                await self._change(method, asked)
                made = answer()
        written: bytes = made.SerializeToString()
        return written

    async def _infer(self, data: bytes, seconds: float | None) -> bytes:
        started = self._clock.monotonic()
        asked = read_infer(data, elements=self._limits.elements, rows=self._limits.rows)
        endpoint = self._router.endpoint(asked.model)
        identity = asked.id or self._plane.new_id()
        try:
            chosen = self._router.choose(endpoint, asked.key or identity, asked.version or None)
            if asked.outputs:
                check_outputs(chosen.answer, list(asked.outputs))
            waiting: asyncio.Future[Tensors] = asyncio.get_running_loop().create_future()
            limits = [limit for limit in (seconds, asked.timeout) if limit is not None]
            deadline = started + min(limits, default=inf)
            question = Question(asked.model, identity, asked.inputs, asked.rows, started, deadline)
            call = self._plane.ask(question, chosen, _settling(waiting))
        except RequestError as error:
            self._rejected(endpoint, asked, identity, started, error)
            raise
        self._seen(identity)
        try:
            outputs = await waiting
        except asyncio.CancelledError:
            call.gone = True
            raise
        return write_infer(
            asked.model, chosen.answer.version, identity, outputs, wanted=asked.outputs, raw=asked.raw
        )

    def _rejected(
        self, endpoint: Endpoint, asked: InferAsked, identity: str, started: float, error: RequestError
    ) -> None:
        if error.status == 503:
            self._metrics.shed.at(endpoint.name, "queue").add()
            return
        self._plane.reject(Question(endpoint.name, identity, {}, asked.rows, started), endpoint.champion)

    def _model_ready(self, asked: Any) -> bool:
        try:
            endpoint = self._router.endpoint(asked.name)
        except RequestError as error:
            if error.status == 503:
                return False
            raise
        if asked.version:
            self._router.version(endpoint, asked.version)
        return self._health.endpoint_ready(asked.name)

    def _metadata(self, asked: Any) -> dict[str, Any]:
        endpoint = self._router.endpoint(asked.name)
        served = (
            self._router.version(endpoint, asked.version) if asked.version else endpoint.champion
        ).signature
        return {
            "name": asked.name,
            "versions": sorted({item.version for item in endpoint.releases.values()}),
            "platform": PLATFORM,
            "inputs": [spec.to_json() for spec in served.inputs],
            "outputs": [spec.to_json() for spec in served.outputs],
        }

    def _index(self, ready: bool) -> list[dict[str, str]]:
        listed = []
        for name, state in self._health.report()["endpoints"].items():
            versions = [release["version"] for release in state.get("releases", ())]
            listed += [{"name": name, "version": version, "state": "READY"} for version in versions]
            if not state["ready"] and not ready:
                why = state.get("refused", {}).get("why", "")
                listed.append({"name": name, "state": "UNAVAILABLE" if why else "LOADING", "reason": why})
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


def _settling(waiting: asyncio.Future[Tensors]) -> Answer:
    def answer(outputs: Tensors | None, error: ModelyardError | None) -> None:
        if waiting.done():  # the caller has gone
            return
        if outputs is not None:
            waiting.set_result(outputs)
        elif isinstance(error, RequestError):
            waiting.set_exception(error)
        else:
            # A release is proved before it is served: a run that fails does so for what this client sent.
            refused = RequestError("the model cannot answer this input", status=422, value=str(error))
            waiting.set_exception(refused)

    return answer
