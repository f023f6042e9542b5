"""The HTTP side of the plane, without an HTTP library: method, path, headers and body in, a reply out.

POST /v2/models/{endpoint}[/versions/{v}]/infer    Open Inference Protocol v2, JSON and binary tensors
GET  /v2/models/{endpoint}[/versions/{v}][/ready]  metadata, readiness
GET  /v2, /v2/health/live, /v2/health/ready, /v2/health
POST /predict/{endpoint}                           plain rows
POST /feedback/{endpoint}                          the right answers, by prediction id
GET  /metrics                                      Prometheus text
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import msgspec
import orjson

from modelyard.core.clock import Clock
from modelyard.core.errors import ModelyardError, RequestError
from modelyard.core.spec import Tensors
from modelyard.data.rows import from_rows
from modelyard.serve.codec.inference import read_request, write_answer, write_error, write_metadata
from modelyard.serve.codec.rows import read_rows, write_rows
from modelyard.serve.feedback import append_feedback, parse_feedback
from modelyard.serve.health import Health
from modelyard.serve.lane import Executor
from modelyard.serve.metrics import Counter, Metrics
from modelyard.serve.options import Limits
from modelyard.serve.plane import Answer, Plane, Question, check_outputs
from modelyard.serve.pool import Served
from modelyard.serve.recent import Recent
from modelyard.serve.router import Endpoint

JSON_TYPE = "application/json"
BINARY_TYPE = "application/octet-stream"
TEXT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
HEADER_LENGTH = "inference-header-content-length"

PLATFORM = "onnxruntime_onnx"
EXTENSIONS = ("binary_tensor_data",)

_LOG = logging.getLogger("modelyard.serve")

Headers = Callable[[str], str | None]
"""The value of a request header by its lower-case name."""


class Reply(Protocol):
    """Takes a request's one reply; called on the event loop's thread, maybe after `handle` has returned."""

    def __call__(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None: ...


class Exchange(msgspec.Struct, frozen=True, gc=False):
    """One request under way: what came, since when (monotonic), and where the reply goes."""

    headers: Headers
    body: bytes
    started: float
    reply: Reply


class App:
    """Answers requests by asking the plane. Never raises for what a client sent."""

    def __init__(
        self,
        plane: Plane,
        health: Health,
        metrics: Metrics,
        executor: Executor,
        clock: Clock,
        *,
        state: Path,
        limits: Limits,
        version: str,
    ) -> None:
        self._plane = plane
        self._router = plane.router
        self._health = health
        self._metrics = metrics
        self._executor = executor
        self._clock = clock
        self._state = state
        self._limits = limits
        self._version = version
        self._recent = Recent()
        self._statuses: dict[int, Counter] = {}

    def handle(self, method: str, path: str, headers: Headers, body: bytes, reply: Reply) -> None:
        """Answers one request through `reply`, at once or when the model has run."""
        try:
            self._dispatch(method, path.split("/"), Exchange(headers, body, self._clock.monotonic(), reply))
        except RequestError as error:
            self.refuse(error, reply)
        except Exception as error:  # a bug must cost one request, not the process.
            self._bug(error, reply)

    def refuse(self, error: RequestError, reply: Reply) -> None:
        """Replies with a refusal: the protocol's error object and the error's status."""
        extra = []
        if error.retry_after is not None:
            extra.append(("retry-after", str(max(1, round(error.retry_after)))))
        self._send(reply, error.status, JSON_TYPE, write_error(error), extra)

    def _dispatch(self, method: str, parts: list[str], exchange: Exchange) -> None:
        match parts:
            case ["", "v2", "models", name, "infer"]:
                _only(method, "POST")
                self._infer(name, None, exchange)
            case ["", "predict", name]:
                _only(method, "POST")
                self._predict(name, exchange)
            case ["", "v2", "models", name, "versions", version, "infer"]:
                _only(method, "POST")
                self._infer(name, version, exchange)
            case ["", "feedback", name]:
                _only(method, "POST")
                self._feedback(name, exchange)
            case _:
                _only(method, "GET", "HEAD")
                self._describe(parts, exchange.reply)

    def _infer(self, name: str, version: str | None, exchange: Exchange) -> None:
        endpoint = self._router.endpoint(name)
        reply = exchange.reply
        identity = ""
        try:
            _plain(exchange.headers)
            length = exchange.headers(HEADER_LENGTH)
            asked = read_request(
                exchange.body,
                None if length is None else _whole(length, HEADER_LENGTH),
                elements=self._limits.elements,
                rows=self._limits.rows,
            )
            identity = asked.id or self._plane.new_id()
            chosen = self._router.choose(endpoint, asked.key or identity, version)
            served, wanted, binary = chosen.answer, asked.outputs, asked.binary
            if wanted:
                check_outputs(served, [item.name for item in wanted])

            def write(outputs: Tensors) -> None:
                data, head = write_answer(
                    name, served.version, identity, outputs, wanted=wanted, binary=binary
                )
                if head is None:
                    self._send(reply, 200, JSON_TYPE, data)
                else:
                    self._send(reply, 200, BINARY_TYPE, data, [(HEADER_LENGTH, str(head))])

            question = Question(name, identity, asked.inputs, asked.rows, exchange.started)
            self._plane.ask(question, chosen, self._answering(reply, write))
        except RequestError as error:
            self._rejected(endpoint, identity, exchange.started, error)
            raise
        self._recent.add(identity)

    def _predict(self, name: str, exchange: Exchange) -> None:
        endpoint = self._router.endpoint(name)
        identity = ""
        try:
            _plain(exchange.headers)
            asked = read_rows(exchange.body, limit=self._limits.rows)
            identity = asked.id or self._plane.new_id()
            chosen = self._router.choose(endpoint, asked.key or identity)
            served = chosen.answer
            inputs = from_rows(asked.rows, served.contract)

            def write(outputs: Tensors) -> None:
                data = write_rows(
                    name, served.digest, served.version, identity, outputs, labels=served.labels
                )
                self._send(exchange.reply, 200, JSON_TYPE, data)

            question = Question(name, identity, inputs, len(asked.rows), exchange.started)
            self._plane.ask(question, chosen, self._answering(exchange.reply, write))
        except RequestError as error:
            self._rejected(endpoint, identity, exchange.started, error)
            raise
        self._recent.add(identity)

    def _answering(self, reply: Reply, write: Callable[[Tensors], None]) -> Answer:
        """The plane's callback: writes the answer, or the refusal; never raises."""

        def answer(outputs: Tensors | None, error: ModelyardError | None) -> None:
            try:
                if outputs is None:
                    self.refuse(_failed(error), reply)
                else:
                    write(outputs)
            except Exception as bug:  # as in `handle`: the batch's other callers must get their answers.
                self._bug(bug, reply)

        return answer

    def _feedback(self, name: str, exchange: Exchange) -> None:
        reply = exchange.reply
        endpoint = self._router.endpoint(name)
        items = parse_feedback(exchange.body, endpoint.champion.labels)
        known = sum(item.id in self._recent for item in items)

        def store() -> RequestError | None:
            try:
                append_feedback(self._state, name, items, self._clock)
            except RequestError as error:
                return error
            return None

        def stored(error: RequestError | None) -> None:
            if error is not None:
                self.refuse(error, reply)
                return
            self._metrics.feedback.at(name, "true").add(known)
            self._metrics.feedback.at(name, "false").add(len(items) - known)
            body = orjson.dumps({"accepted": len(items), "unknown": len(items) - known})
            self._send(reply, 200, JSON_TYPE, body)

        self._executor.offload(store, stored)

    def _describe(self, parts: list[str], reply: Reply) -> None:
        match parts:
            case ["", "metrics"]:
                for served in self._served():
                    self._metrics.waiting.at(served.digest).set(served.lane.waiting)
                self._send(reply, 200, TEXT_TYPE, self._metrics.text())
            case ["", "v2"]:
                server = {"name": "modelyard", "version": self._version, "extensions": EXTENSIONS}
                self._send(reply, 200, JSON_TYPE, orjson.dumps(server))
            case ["", "v2", "health"]:
                self._send(reply, 200, JSON_TYPE, orjson.dumps(self._health.report()))
            case ["", "v2", "health", "live"]:
                self._send(reply, 200, JSON_TYPE, b'{"live":true}')
            case ["", "v2", "health", "ready"]:
                report = orjson.dumps(self._health.report())
                self._send(reply, 200 if self._health.ready else 503, JSON_TYPE, report)
            case ["", "v2", "models", name, "ready"] | ["", "v2", "models", name, "versions", _, "ready"]:
                endpoint = self._router.endpoint(name)
                if len(parts) > 5:
                    self._router.version(endpoint, parts[5])
                ready = self._health.endpoint_ready(name)
                self._send(
                    reply, 200 if ready else 503, JSON_TYPE, orjson.dumps({"name": name, "ready": ready})
                )
            case ["", "v2", "models", name] | ["", "v2", "models", name, "versions", _]:
                self._send(reply, 200, JSON_TYPE, self._metadata(name, parts[5] if len(parts) > 5 else None))
            case _:
                raise RequestError("there is nothing here", status=404, value="/".join(parts)[:200],
                                   fix="see /v2, /v2/models/NAME, /predict/NAME, /metrics")  # fmt: skip

    def _metadata(self, name: str, version: str | None) -> bytes:
        endpoint = self._router.endpoint(name)
        served = endpoint.champion if version is None else self._router.version(endpoint, version)
        versions = sorted({item.version for item in endpoint.releases.values()})
        signature = served.signature
        return write_metadata(name, versions, PLATFORM, signature.inputs, signature.outputs)

    def _served(self) -> list[Served]:
        return [item for endpoint in self._router.endpoints.values() for item in endpoint.releases.values()]

    def _rejected(self, endpoint: Endpoint, identity: str, started: float, error: RequestError) -> None:
        if error.status == 503:
            self._metrics.shed.at(endpoint.name, "queue").add()
            return
        identity = identity or self._plane.new_id()
        self._plane.reject(Question(endpoint.name, identity, {}, 1, started), endpoint.champion)

    def _bug(self, error: Exception, reply: Reply) -> None:
        _LOG.error("a request failed in a way that was not foreseen", exc_info=error)
        self._send(reply, 500, JSON_TYPE, b'{"error":"the service failed; its log says why"}')

    def _send(self, reply: Reply, status: int, kind: str, body: bytes,
              extra: list[tuple[str, str]] | None = None) -> None:  # fmt: skip
        counter = self._statuses.get(status)
        if counter is None:
            counter = self._statuses[status] = self._metrics.http.at(str(status))
        counter.add()
        headers = [("content-type", kind)]
        if extra:
            headers += extra
        reply(status, headers, body)


def _only(method: str, *allowed: str) -> None:
    if method not in allowed:
        raise RequestError("the method is not allowed here", status=405, value=method,
                           rule=" or ".join(allowed))  # fmt: skip


def _plain(headers: Headers) -> None:
    encoding = headers("content-encoding")
    if encoding is not None and encoding != "identity":
        raise RequestError("the content encoding is not supported", status=415, value=encoding,
                           where="Content-Encoding", rule="identity")  # fmt: skip


def _whole(text: str, where: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 16):
        raise RequestError("the length is no whole number", value=text, where=where)
    return int(text)


def _failed(error: ModelyardError | None) -> RequestError:
    """A release is proved before it is served, so a run that fails does so for what this client sent."""
    return RequestError("the model cannot answer this input", status=422, value=str(error))
