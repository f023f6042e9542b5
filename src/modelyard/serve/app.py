"""The HTTP side of the plane, without an HTTP library: method, path, headers and body in, a reply out.

POST /v2/models/{endpoint}[/versions/{v}]/infer    Open Inference Protocol v2, JSON and binary tensors
GET  /v2/models/{endpoint}[/versions/{v}][/ready]  metadata, readiness
GET  /v2, /v2/health/live, /v2/health/ready, /v2/health
POST /v2/repository/index, /v2/repository/models/{endpoint}/load, .../unload
POST /predict/{endpoint}                           plain rows
POST /feedback/{endpoint}                          the right answers, by prediction id
GET  /metrics, /openapi.json                       Prometheus text, OpenAPI 3.1
and what the dialects take. Who may ask for what stands in `access_rules`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import orjson

from modelyard.core.clock import Clock
from modelyard.core.errors import ModelyardError, RequestError
from modelyard.core.spec import Tensors
from modelyard.serve.access.guard import Guard
from modelyard.serve.access_rules import check_origin, role_of
from modelyard.serve.arrivals import Arrivals
from modelyard.serve.changes import Changes
from modelyard.serve.codec.inference import read_request, write_answer
from modelyard.serve.describe import Board, Describer
from modelyard.serve.dialect import Ask, Dialect, Read
from modelyard.serve.dialects import rows_reader
from modelyard.serve.encoding import check_encoding, unpack
from modelyard.serve.exchange import BINARY_TYPE, JSON_TYPE, Exchange, Headers, Reply, Written
from modelyard.serve.express import Express, failed
from modelyard.serve.feedback import append_feedback, parse_feedback
from modelyard.serve.fields import HEADER_LENGTH, TIMEOUT, deadline_of, only, whole
from modelyard.serve.health import Health
from modelyard.serve.holding import hold, timeout_of
from modelyard.serve.lane import Call, Executor
from modelyard.serve.metrics import Metrics
from modelyard.serve.options import Limits
from modelyard.serve.plane import Answer, Plane, Question, check_outputs
from modelyard.serve.pool import Served
from modelyard.serve.recent import Recent
from modelyard.serve.replies import Replies
from modelyard.serve.repository import Repository
from modelyard.serve.router import Endpoint, NotResident
from modelyard.serve.watch import Watch, Watched

UNUSUAL = ("content-encoding", "accept-encoding", "traceparent", TIMEOUT)
"""Headers that keep a request from the short way, which does not heed them."""

_INLINE = 1 << 16
_LARGE = 4_096
"""Bytes of a body from which on it pays to look whether there is room before its tensors are read."""


class App:
    """Answers requests by asking the plane. Never raises for what a client sent.

    With a `guard` the door calls `admit` before it reads a body. Without one whoever reaches the process
    may ask for anything.
    """

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
        guard: Guard | None = None,
        repository: Repository | None = None,
        arrivals: Arrivals | None = None,
        watch: Watch | None = None,
        dialects: Sequence[Dialect] = (),
        board: Board | None = None,
    ) -> None:
        self._plane = plane
        self._router = plane.router
        self._metrics = metrics
        self._executor = executor
        self._clock = clock
        self._state = state
        self._limits = limits
        self._guard = guard
        self._arrivals = arrivals
        self._watch = watch or Watch(clock)
        self._dialects = tuple(dialects)
        self._describer = Describer(
            self._router,
            health,
            metrics,
            version=version,
            limits=limits,
            guarded=guard is not None,
            board=board,
        )
        self._alone = board is None
        self._recent = Recent()
        self._replies = Replies(metrics)
        self._changes = Changes(repository, self._replies)
        self._express = Express(
            plane, metrics, clock, self, recent=self._recent, limits=limits, unusual=UNUSUAL
        )
        self.forgetting = [plane.forget, self._express.forget]
        """Who holds on to an endpoint, and lets go of it when it has left memory."""
        self.guarded = guard is not None
        """Whether `admit` has to be asked."""

    def forget(self, endpoint: Endpoint) -> None:
        """Lets go of an endpoint that left memory."""
        for forget in self.forgetting:
            forget(endpoint)

    def seen(self, identity: str) -> None:
        """Remembers the id of a request that another door answers, for its feedback."""
        self._recent.add(identity)

    def admit(self, method: str, path: str, headers: Headers) -> None:
        """Raises `RequestError` 401, 403 or 429 for a request that may not be made; no body is needed."""
        if self._guard is not None:
            needed = role_of(method, path)
            if needed != "open":
                self._guard.allow(headers("authorization"), None if needed == "any" else needed)

    def check_room(self, path: str) -> None:
        """Raises `RequestError` 503 when the model that a path leads to cannot take one more item now.

        For a body that is long to read: most of what is refused under load is refused for this.
        """
        match path.split("/"):
            case ["", "v2", "models", name, "infer"] | ["", "predict", name]:
                endpoint = self._router.endpoints.get(name)
                if endpoint is None or endpoint.only is None:
                    return
                try:
                    endpoint.only.answer.lane.check(1)
                except RequestError as error:
                    self._rejected(endpoint, "", 0.0, error)
                    raise

    def handle(self, method: str, path: str, headers: Headers, body: bytes, reply: Reply) -> Call | None:
        """Answers one request through `reply`, at once or when the model has run.

        Returns the call of a request that will wait: its `gone` drops it when the client has left.
        """
        try:
            if method == "POST" and not self._watch.all and self._express.take(path, headers, body, reply):
                return self._express.waiting
            reply = self._watch.over(method, path, headers, reply)
            exchange = Exchange(headers, body, self._clock.monotonic(), reply)
            packed = headers("content-encoding")
            encoding = None if packed is None else check_encoding(packed)
            parts = path.split("/")
            if encoding is None:
                return self._route(method, parts, exchange)
            limits = self._limits

            def plain() -> bytes:
                return unpack(body, encoding, limit=limits.body, ratio=limits.ratio)

            if len(body) <= _INLINE:
                return self._route(method, parts, Exchange(headers, plain(), exchange.started, reply))
            self._later(plain, method, parts, exchange)
        except RequestError as error:
            self.refuse(error, reply)
        except Exception as error:  # a bug must cost one request, not the process.
            self._replies.admit_fault(error, reply)
        return None

    def refuse(self, error: RequestError, reply: Reply) -> None:
        """Replies with a refusal: the protocol's error object and the error's status."""
        self._replies.refuse(error, reply)

    def _later(self, plain: Callable[[], bytes], method: str, parts: list[str], exchange: Exchange) -> None:
        """Unpacks a large body in a thread, then goes on."""
        reply = exchange.reply

        def work() -> bytes | RequestError:
            try:
                return plain()
            except RequestError as error:
                return error

        def done(result: bytes | RequestError) -> None:
            try:
                if isinstance(result, RequestError):
                    self.refuse(result, reply)
                else:
                    self._route(method, parts, Exchange(exchange.headers, result, exchange.started, reply))
            except RequestError as error:
                self.refuse(error, reply)
            except Exception as error:  # as in `handle`
                self._replies.admit_fault(error, reply)

        self._executor.offload(work, done)

    def _route(self, method: str, parts: list[str], exchange: Exchange) -> Call | None:
        """As `_dispatch`, after the endpoint was loaded if it is not in memory."""
        try:
            return self._dispatch(method, parts, exchange)
        except NotResident as missing:
            if self._arrivals is None:
                raise
            again = partial(self._again, method, parts, exchange)
            deadline = deadline_of(exchange, timeout_of(parts, exchange, self._limits))
            return hold(self._arrivals, self._plane, missing.name, deadline, again)

    def _again(self, method: str, parts: list[str], exchange: Exchange, error: RequestError | None) -> None:
        try:
            if error is not None:
                raise error  # noqa: TRY301 - one handler for all refusals
            self._route(method, parts, exchange)
        except RequestError as refused:
            self.refuse(refused, exchange.reply)
        except Exception as bug:  # as in `handle`
            self._replies.admit_fault(bug, exchange.reply)

    def _dispatch(self, method: str, parts: list[str], exchange: Exchange) -> Call | None:
        match parts:
            case ["", "v2", "models", name, "infer"]:
                only(method, "POST")
                return self._infer(name, None, exchange)
            case ["", "predict", name]:
                only(method, "POST")
                return self._ask(name, None, rows_reader(exchange.headers), exchange)
            case ["", "v2", "models", name, "versions", version, "infer"]:
                only(method, "POST")
                return self._infer(name, version, exchange)
            case ["", "feedback", name]:
                only(method, "POST")
                self._feedback(name, exchange)
            case ["", "v2", "repository", "index"]:
                only(method, "POST")
                self._replies.write(exchange, 200, Written(self._describer.index(exchange.body)))
            case ["", "v2", "repository", "models", name, ("load" | "unload") as change]:
                only(method, "POST")
                check_origin(exchange.headers, local=not self.guarded)
                self._changes.begin(name, change == "load", exchange)
            case _:
                return self._other(method, parts, exchange)
        return None

    def _other(self, method: str, parts: list[str], exchange: Exchange) -> Call | None:
        """A dialect's request, or a question about the service."""
        for dialect in self._dialects:
            wanted = dialect.route(method, parts, exchange.headers, self._router.names)
            if isinstance(wanted, Ask):
                return self._ask(wanted.endpoint, wanted.version, wanted.read, exchange)
            if wanted is not None:
                endpoint = self._router.endpoint(wanted.endpoint)
                version = wanted.version
                served = endpoint.champion if version is None else self._router.version(endpoint, version)
                self._replies.write(exchange, 200, wanted.write(endpoint, served))
                return None
        only(method, "GET", "HEAD")
        status, written = self._describer.tell(parts)
        self._replies.write(exchange, status, written)
        return None

    def _infer(self, name: str, version: str | None, exchange: Exchange) -> Call | None:
        endpoint = self._router.endpoint(name)
        identity = ""
        try:
            length = exchange.headers(HEADER_LENGTH)
            asked = read_request(
                exchange.body,
                None if length is None else whole(length, "Inference-Header-Content-Length"),
                elements=self._limits.elements,
                rows=self._limits.rows,
                admit=self._room(endpoint, exchange) if version is None else None,
            )
            identity = asked.id or self._plane.new_id()
            deadline = deadline_of(exchange, asked.timeout)
            chosen = self._router.choose(endpoint, asked.key or identity, version)
            served, wanted, binary = chosen.answer, asked.outputs, asked.binary
            if wanted:
                check_outputs(served, [item.name for item in wanted])

            def write(outputs: Tensors) -> None:
                data, head = write_answer(
                    name, served.version, identity, outputs, wanted=wanted, binary=binary
                )
                if head is None:
                    self._replies.write(exchange, 200, Written(data))
                else:
                    length = ("inference-header-content-length", str(head))
                    self._replies.write(exchange, 200, Written(data, BINARY_TYPE, (length,)))

            question = Question(name, identity, asked.inputs, asked.rows, exchange.started, deadline)
            self._note(exchange, name, identity, served)
            call = self._plane.ask(question, chosen, self._answering(exchange.reply, write))
        except RequestError as error:
            self._rejected(endpoint, identity, exchange.started, error)
            raise
        self._recent.add(identity)
        return call if served.lane.slow else None

    def _room(self, endpoint: Endpoint, exchange: Exchange) -> Callable[[float | None], None] | None:
        """What refuses a large request that would be answered too late, before its tensors are read."""
        if len(exchange.body) < _LARGE or endpoint.only is None or not endpoint.only.answer.lane.waiting:
            return None
        lane = endpoint.only.answer.lane
        return lambda timeout: lane.check(1, deadline_of(exchange, timeout))

    def _ask(self, name: str, version: str | None, read: Read, exchange: Exchange) -> Call | None:
        """As `_infer`, for all other protocols: their tensors may depend on the release that answers."""
        endpoint = self._router.endpoint(name)
        identity = ""
        try:
            asked = read(exchange.body, exchange.headers, self._limits)
            identity = asked.id or self._plane.new_id()
            deadline = deadline_of(exchange, None)
            chosen = self._router.choose(endpoint, asked.key or identity, version)
            served = chosen.answer
            inputs, rows = asked.tensors(served)

            def write(outputs: Tensors) -> None:
                self._replies.write(exchange, 200, asked.write(name, served, identity, outputs))

            question = Question(name, identity, inputs, rows, exchange.started, deadline)
            self._note(exchange, name, identity, served)
            call = self._plane.ask(question, chosen, self._answering(exchange.reply, write))
        except RequestError as error:
            self._rejected(endpoint, identity, exchange.started, error)
            raise
        self._recent.add(identity)
        return call if served.lane.slow else None

    def _answering(self, reply: Reply, write: Callable[[Tensors], None]) -> Answer:
        """The plane's callback: writes the answer, or the refusal; never raises."""

        def answer(outputs: Tensors | None, error: ModelyardError | None) -> None:
            try:
                if outputs is None:
                    self.refuse(failed(error), reply)
                else:
                    write(outputs)
            except Exception as bug:  # as in `handle`: the batch's other callers must get their answers.
                self._replies.admit_fault(bug, reply)

        return answer

    def _feedback(self, name: str, exchange: Exchange) -> None:
        reply = exchange.reply
        check_origin(exchange.headers)
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
            strange = len(items) - known
            # Another worker may have answered what this one has not seen.
            sure = self._alone or not strange
            self._metrics.feedback.at(name, "true").add(known)
            self._metrics.feedback.at(name, "false" if sure else "unsure").add(strange)
            body = orjson.dumps({"accepted": len(items), "unknown": strange if sure else None})
            self._replies.send(reply, 200, JSON_TYPE, body)

        self._executor.offload(store, stored)

    def _note(self, exchange: Exchange, name: str, identity: str, served: Served) -> None:
        reply = exchange.reply
        if isinstance(reply, Watched):
            reply.facts |= {"endpoint": name, "id": identity, "release": served.digest}

    def _rejected(self, endpoint: Endpoint, identity: str, started: float, error: RequestError) -> None:
        if error.status in (503, 504):
            self._metrics.shed.at(endpoint.name, "queue" if error.status == 503 else "late").add()
            return
        identity = identity or self._plane.new_id()
        self._plane.reject(Question(endpoint.name, identity, {}, 1, started), endpoint.champion)
