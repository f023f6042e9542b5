"""The short way of the ordinary request: numbers in, as JSON or raw bytes, to the one release of an endpoint.

It does what `App` does for every request, with all that depends only on the endpoint done beforehand.
What is not ordinary (another encoding, texts, a trace, a choice of releases, anything wrong) is left to
`App`, which says why it refuses.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from math import inf
from typing import Protocol

from modelyard.core.clock import Clock
from modelyard.core.errors import ModelyardError, RequestError
from modelyard.core.spec import Tensors
from modelyard.serve.codec.plain import PlainReader, PlainWriter
from modelyard.serve.exchange import BINARY_TYPE, JSON_TYPE
from modelyard.serve.fields import HEADER_LENGTH
from modelyard.serve.lane import Call
from modelyard.serve.metrics import Metrics
from modelyard.serve.options import Limits
from modelyard.serve.plane import Account, Plane
from modelyard.serve.pool import Served
from modelyard.serve.recent import Recent
from modelyard.serve.router import Endpoint

_HEADERS = [("content-type", JSON_TYPE)]
_RAW_HEADER = ("content-type", BINARY_TYPE)
_PATHS = 4_096
_LOG = logging.getLogger("modelyard.serve")

Headers = Callable[[str], str | None]
Reply = Callable[[int, list[tuple[str, str]], bytes], None]


class Careful(Protocol):
    """Who answers what the short way does not: `App`."""

    def refuse(self, error: RequestError, reply: Reply) -> None: ...


class _Way:
    """What is known of one path as long as its endpoint is not swapped."""

    __slots__ = ("account", "endpoint", "fixed", "lane", "name", "writer")

    def __init__(self, endpoint: Endpoint, served: Served, account: Account) -> None:
        self.name = endpoint.name
        self.endpoint = endpoint
        self.account = account
        self.fixed = served.fixed
        self.lane = served.lane
        self.writer = PlainWriter(endpoint.name, served.version, served.signature.outputs)

    def fits(self, inputs: Tensors) -> bool:
        """Whether the inputs are those of the signature; `plane.check_inputs` says what else is wrong."""
        if len(inputs) != len(self.fixed):
            return False
        for name, dtype, tail in self.fixed:
            array = inputs.get(name)
            if array is None or array.dtype != dtype or array.shape[1:] != tail:
                return False
        return True


class Express:
    """Answers ordinary requests; everything on the event loop's thread."""

    def __init__(
        self,
        plane: Plane,
        metrics: Metrics,
        clock: Clock,
        careful: Careful,
        *,
        recent: Recent,
        limits: Limits,
        unusual: tuple[str, ...],
    ) -> None:
        self._plane = plane
        self._router = plane.router
        self._metrics = metrics
        self._monotonic = clock.monotonic
        self._careful = careful
        self._seen = recent.add
        self._unusual = unusual
        self._reader = PlainReader(elements=limits.elements, rows=limits.rows)
        self._ok = metrics.http.at("200")
        self._ways: dict[str, _Way] = {}
        self.waiting: Call | None = None
        """The call that was taken last, if it waits long enough for its caller to leave."""

    def take(self, path: str, headers: Headers, body: bytes, reply: Reply) -> bool:
        """Answers a POST now or later, or says `False`: then nothing has happened.

        Raises `RequestError` when the lane has no room.
        """
        started = self._monotonic()
        way = self._ways.get(path)
        if way is None or self._router.endpoints.get(way.name) is not way.endpoint:
            way = self._learn(path)
            if way is None:
                return False
        for name in self._unusual:
            if headers(name) is not None:
                return False
        length = headers(HEADER_LENGTH)
        asked = self._reader.read(body) if length is None else self._reader.read_raw(body, length)
        if asked is None or not way.fits(asked.inputs):
            return False
        if asked.outputs is not None and tuple(item.name for item in asked.outputs) != way.writer.names:
            return False
        plane, account, rows = self._plane, way.account, asked.rows
        identity = asked.id or plane.new_id()
        answer = partial(self._answer, reply, way.writer, identity, rows, asked.binary)
        deadline = inf if asked.timeout is None else started + asked.timeout
        call = Call(asked.inputs, rows, answer, identity, started, deadline, account)
        plane.open += 1
        account.open += 1
        try:
            way.lane.submit(call)
        except RequestError:
            plane.open -= 1
            account.open -= 1
            self._metrics.shed.at(way.name, "queue").add()
            raise
        self.waiting = call if way.lane.slow else None
        self._seen(identity)
        return True

    def forget(self, endpoint: Endpoint) -> None:
        """Lets go of an endpoint that is served no more."""
        path = f"/v2/models/{endpoint.name}/infer"
        way = self._ways.get(path)
        if way is not None and self._router.endpoints.get(endpoint.name) is not way.endpoint:
            del self._ways[path]

    def _answer(self, reply: Reply, writer: PlainWriter, identity: str, rows: int, binary: bool,
                outputs: Tensors | None, error: ModelyardError | None) -> None:  # fmt: skip
        try:
            if outputs is None:
                self._careful.refuse(failed(error), reply)
                return
            headers = _HEADERS
            if binary:
                body, length = writer.write_raw(identity, rows, outputs)  # type: ignore[arg-type]
                headers = [_RAW_HEADER, (HEADER_LENGTH, str(length))]
            else:
                body = writer.write(identity, rows, outputs)  # type: ignore[arg-type]
            self._ok.value += 1.0
            reply(200, headers, body)
        except Exception:  # one caller's broken connection must not cost the batch's others their answers.
            _LOG.exception("an answer could not be given")

    def _learn(self, path: str) -> _Way | None:
        self._ways.pop(path, None)
        parts = path.split("/")
        if len(parts) != 5 or parts[:3] != ["", "v2", "models"] or parts[4] != "infer":
            return None
        endpoint = self._router.endpoints.get(parts[3])
        if endpoint is None or endpoint.only is None:
            return None
        served = endpoint.only.answer
        way = _Way(endpoint, served, self._plane.account(endpoint.name, served))
        if not way.writer.able or any(-1 in tail for _, _, tail in way.fixed):
            return None
        if len(self._ways) >= _PATHS:
            self._ways.clear()
        self._ways[path] = way
        return way


def failed(error: ModelyardError | None) -> RequestError:
    """What a client hears when its own input made the model fail: the release was proved before."""
    if isinstance(error, RequestError):
        return error
    return RequestError("the model cannot answer this input", status=422, value=str(error))
