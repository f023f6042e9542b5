"""One inference over gRPC: a message's bytes in, an answer's bytes to a callback, on the event loop."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import TypeAlias

from modelyard.core.clock import Clock
from modelyard.core.errors import ModelyardError, RequestError
from modelyard.core.spec import Tensors
from modelyard.serve.arrivals import Arrivals
from modelyard.serve.express import failed
from modelyard.serve.grpc.codec import read_infer, write_infer
from modelyard.serve.grpc.plain import InferAsked, PlainReader, PlainWriter
from modelyard.serve.holding import hold
from modelyard.serve.lane import Call
from modelyard.serve.metrics import Metrics
from modelyard.serve.options import Limits
from modelyard.serve.plane import Account, Plane, Question, check_inputs, check_outputs
from modelyard.serve.pool import Served
from modelyard.serve.router import Endpoint, NotResident

_LOG = logging.getLogger("modelyard.serve")
_WAYS = 4_096

Answered = Callable[[bytes | None, RequestError | None], None]
"""Hears the answer's bytes, or why there is none; never raises."""

_Rest: TypeAlias = tuple[InferAsked, str, float, float, Answered, dict[str, str] | None]
"""The arguments of a request that waits for its endpoint."""


class _Way:
    """What is known of an endpoint with one release, as long as it is not swapped."""

    __slots__ = ("account", "endpoint", "served", "writer")

    def __init__(self, endpoint: Endpoint, served: Served, account: Account) -> None:
        self.endpoint = endpoint
        self.served = served
        self.account = account
        self.writer = PlainWriter(endpoint.name, served.version)


class Inference:
    """Asks the plane what a `ModelInferRequest` asks. `seen` hears each request's id, for its feedback."""

    def __init__(
        self,
        plane: Plane,
        metrics: Metrics,
        clock: Clock,
        *,
        limits: Limits,
        seen: Callable[[str], None],
        arrivals: Arrivals | None = None,
    ) -> None:
        self._plane = plane
        self._router = plane.router
        self._metrics = metrics
        self._monotonic = clock.monotonic
        self._limits = limits
        self._seen = seen
        self._reader = PlainReader(elements=limits.elements, rows=limits.rows)
        self._ways: dict[str, _Way] = {}
        self._arrivals = arrivals

    def forget(self, endpoint: Endpoint) -> None:
        """Lets go of an endpoint that left memory."""
        way = self._ways.get(endpoint.name)
        if way is not None and self._router.endpoints.get(endpoint.name) is not way.endpoint:
            del self._ways[endpoint.name]

    def hold(
        self, missing: NotResident, seconds: float, again: Callable[[RequestError | None], None]
    ) -> Call:
        """Calls `again` once the endpoint is loaded, or with why it is not, in `seconds` at the latest.

        Raises `RequestError` at once when it is no use to wait.
        """
        if self._arrivals is None:
            raise missing
        return hold(self._arrivals, self._plane, missing.name, self._monotonic() + seconds, again)

    def ask(
        self,
        data: bytes,
        seconds: float,
        answered: Answered,
        *,
        facts: dict[str, str] | None = None,
    ) -> Call:
        """Asks for an answer within so many `seconds`; of the call `gone` may be set to drop it.

        Raises `RequestError` for what is refused; `answered` is not called then. `facts` hears what is asked.
        """
        started = self._monotonic()
        asked = self._reader.read(data)
        if asked is None:
            asked = read_infer(data, elements=self._limits.elements, rows=self._limits.rows)
        if asked.timeout is not None:
            seconds = min(seconds, asked.timeout)
        identity = asked.id or self._plane.new_id()
        way = self._way(asked)
        if way is None:
            return self._choose(asked, identity, started, started + seconds, answered, facts)
        if facts is not None:
            facts |= {"endpoint": asked.model, "id": identity, "release": way.served.digest}
        answer = partial(self._answer, answered, way.writer.write, identity)
        account = way.account
        call = Call(asked.inputs, asked.rows, answer, identity, started, started + seconds, account)
        try:
            check_inputs(way.served, asked.inputs)
            if started + seconds <= self._monotonic():
                raise _late(asked.model)
            self._plane.open += 1
            account.open += 1
            try:
                way.served.lane.submit(call)
            except BaseException:
                self._plane.open -= 1
                account.open -= 1
                raise
        except RequestError as error:
            self._rejected(way.endpoint, asked, identity, started, error)
            raise
        self._seen(identity)
        return call

    def _choose(
        self,
        asked: InferAsked,
        identity: str,
        started: float,
        deadline: float,
        answered: Answered,
        facts: dict[str, str] | None,
    ) -> Call:
        """As `ask`, for requests that name outputs or a version, and where a policy chooses the release."""
        try:
            endpoint = self._router.endpoint(asked.model)
        except NotResident as missing:
            rest = (asked, identity, started, deadline, answered, facts)
            return self.hold(missing, deadline - self._monotonic(), partial(self._again, rest))
        try:
            chosen = self._router.choose(endpoint, asked.key or identity, asked.version or None)
            served = chosen.answer
            if asked.outputs:
                check_outputs(served, list(asked.outputs))
            if facts is not None:
                facts |= {"endpoint": asked.model, "id": identity, "release": served.digest}

            def write(identity: str, outputs: Tensors) -> bytes:
                return write_infer(
                    asked.model, served.version, identity, outputs, wanted=asked.outputs, raw=asked.raw
                )

            question = Question(asked.model, identity, asked.inputs, asked.rows, started, deadline)
            call = self._plane.ask(question, chosen, partial(self._answer, answered, write, identity))
        except RequestError as error:
            self._rejected(endpoint, asked, identity, started, error)
            raise
        self._seen(identity)
        return call

    def _again(self, rest: _Rest, error: RequestError | None) -> None:
        answered = rest[4]
        try:
            if error is not None:
                raise error  # noqa: TRY301 - one handler for all refusals
            self._choose(*rest)
        except RequestError as refused:
            answered(None, refused)
        except Exception:  # a bug must cost one call, not the process.
            _LOG.exception("a gRPC call failed in a way that was not foreseen")
            answered(None, RequestError("the service failed; its log says why", status=500))

    def _way(self, asked: InferAsked) -> _Way | None:
        if asked.outputs or asked.version or not asked.raw:
            return None
        way = self._ways.get(asked.model)
        if way is not None and self._router.endpoints.get(asked.model) is way.endpoint:
            return way
        self._ways.pop(asked.model, None)
        endpoint = self._router.endpoints.get(asked.model)
        if endpoint is None or endpoint.only is None:
            return None
        if len(self._ways) >= _WAYS:
            self._ways.clear()
        served = endpoint.only.answer
        made = _Way(endpoint, served, self._plane.account(endpoint.name, served))
        self._ways[asked.model] = made
        return made

    def _answer(
        self,
        answered: Answered,
        write: Callable[[str, Tensors], bytes],
        identity: str,
        outputs: Tensors | None,
        error: ModelyardError | None,
    ) -> None:
        try:
            if outputs is None:
                answered(None, failed(error))
            else:
                answered(write(identity, outputs), None)
        except Exception:  # one caller's broken call must not cost the batch's others their answers.
            _LOG.exception("an answer could not be given")
            answered(None, RequestError("the service failed; its log says why", status=500))

    def _rejected(
        self, endpoint: Endpoint, asked: InferAsked, identity: str, started: float, error: RequestError
    ) -> None:
        if error.status in (503, 504):
            self._metrics.shed.at(endpoint.name, "queue" if error.status == 503 else "late").add()
            return
        self._plane.reject(Question(endpoint.name, identity, {}, asked.rows, started), endpoint.champion)


def waits(call: Call) -> bool:
    """Whether the call waits long enough to look whether its client stays."""
    return not isinstance(call.sink, Account) or call.sink.served.lane.slow


def _late(where: str) -> RequestError:
    return RequestError("the deadline has passed", status=504, where=where,
                        rule="an answer within the client's timeout")  # fmt: skip
