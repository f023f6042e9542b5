"""The serving plane: a request's tensors in, a release's answer out. It knows no protocol.

A door asks the router which release it is, builds the tensors as its protocol says, then calls `ask`. The
answer comes through the callback, on the event loop's thread, exactly once. Shadows are asked behind the
answering release, and what becomes of them is only logged.
"""

from __future__ import annotations

import threading
from collections import deque
from itertools import count
from math import inf
from typing import Protocol

import msgspec

from modelyard.core.clock import Clock
from modelyard.core.digest import Digest
from modelyard.core.errors import ModelyardError, RequestError
from modelyard.core.names import did_you_mean
from modelyard.core.spec import Tensors
from modelyard.serve.lane import Call, Run
from modelyard.serve.metrics import Counter, Histogram, Metrics
from modelyard.serve.pool import Served
from modelyard.serve.record import Arm, Outcome, PredictionRecord, seconds_of
from modelyard.serve.router import Chosen, Endpoint, Router

UNSETTLED = 8_192
"""Records that wait for the log's thread to count them; one more and the loop does it itself."""

UNSETTLED_BYTES = 1 << 20
"""The same for the bytes of their inputs."""


class Question(msgspec.Struct, frozen=True, gc=False):
    """A request as the plane takes it; the inputs must not be changed afterwards.

    `started` is the clock's `monotonic` at the moment the request was complete, `deadline` the moment
    after which nobody waits for the answer any more.
    """

    endpoint: str
    id: str
    inputs: Tensors
    rows: int
    started: float
    deadline: float = inf


class Answer(Protocol):
    """Who waits for an answer. Exactly one of the two arguments is not `None`."""

    def __call__(self, outputs: Tensors | None, error: ModelyardError | None) -> None: ...


class Recorder(Protocol):
    """Where records go. Called from any thread, one at a time; must be quick and must not raise."""

    def append(self, record: PredictionRecord) -> None: ...


class _Samples(msgspec.Struct):
    """The metrics of one release, arm and outcome, looked up once."""

    requests: Counter
    items: Counter
    seconds: Histogram
    waits: Histogram


class Account:
    """The `lane.Sink` of one endpoint, release and arm: what was asked there and what became of it."""

    __slots__ = ("_plane", "arm", "endpoint", "item_bytes", "open", "served")

    def __init__(self, plane: Plane, endpoint: str, served: Served, arm: Arm) -> None:
        self._plane = plane
        self.endpoint = endpoint
        self.served = served
        self.arm: Arm = arm
        self.open = 0
        self.item_bytes = served.lane.item_bytes

    def ran(self, run: Run) -> None:
        calls = run.calls
        self._close(len(calls))
        self._plane.record(self, "ok" if run.error is None else "failed", calls, run)

    def left(self, call: Call, *, late: bool) -> None:
        self._close(1)
        self._plane.lost(self, call, late=late)

    def _close(self, calls: int) -> None:
        self.open -= calls
        if self.arm == "primary":
            self._plane.open -= calls


class Plane:
    """Answers for the endpoints of a router. One for each process; used on the event loop's thread.

    What was answered is counted and logged later: by the log's thread, by whoever reads the metrics, or
    here when much has gathered.
    """

    def __init__(
        self,
        router: Router,
        metrics: Metrics,
        recorder: Recorder,
        clock: Clock,
        *,
        name: str,
        shadows: int = 256,
    ) -> None:
        self.router = router
        self._metrics = metrics
        self._recorder = recorder
        self._clock = clock
        self._monotonic, self._now = clock.monotonic, clock.now
        self._name = name
        self._numbers = count(1)
        self._samples: dict[tuple[str, Digest, Arm, Outcome], _Samples] = {}
        self._accounts: dict[tuple[str, Digest, Arm], Account] = {}
        self._shadows = shadows
        self._unsettled: deque[PredictionRecord] = deque()
        self._held = 0
        self._settling = threading.Lock()
        self.open = 0
        """Requests that wait for their answer."""
        metrics.before(self.settle)

    def new_id(self) -> str:
        """An id that no other request of any process has."""
        return f"{self._name}-{next(self._numbers):x}"

    def ask(self, question: Question, chosen: Chosen, answer: Answer) -> Call:
        """Asks the chosen release; `answer` is called once, never before this returns.

        Raises `RequestError` (400) when the inputs do not fit the signature, naming the input, (503) when
        too many wait or the answer would come after the question's deadline, and (504) when that has
        passed; `answer` is not called then. Of the call that is returned `gone` may be set to drop it.
        """
        served = chosen.answer
        check_inputs(served, question.inputs)
        if question.deadline < inf and question.deadline <= self._clock.monotonic():
            raise RequestError("the deadline has passed", status=504, where=question.endpoint,
                               rule="an answer within the client's timeout")  # fmt: skip
        account = self._accounts.get((question.endpoint, served.digest, "primary"))
        if account is None or account.served is not served:
            account = self.account(question.endpoint, served)
        call = Call(question.inputs, question.rows, answer, question.id, question.started,
                    question.deadline, account)  # fmt: skip
        self.open += 1
        account.open += 1
        try:
            served.lane.submit(call)
        except BaseException:
            self.open -= 1
            account.open -= 1
            raise
        for shadow in chosen.shadows:
            self._ask_shadow(question, shadow)
        return call

    def reject(self, question: Question, served: Served) -> None:
        """Records that a request to an endpoint was refused before it reached the model."""
        account = self.account(question.endpoint, served)
        self._note(account, "rejected", question)

    def settle(self) -> None:
        """Counts what was answered since the last time, and hands it to the recorder; from any thread."""
        with self._settling:
            unsettled = self._unsettled
            alike: dict[tuple[str, Digest, Arm, Outcome], list[PredictionRecord]] = {}
            while unsettled:
                record = unsettled.popleft()
                key = (record.endpoint, record.by.digest, record.arm, record.outcome)
                alike.setdefault(key, []).append(record)
                self._recorder.append(record)
            for key, records in alike.items():
                samples = self._samples.get(key)
                if samples is None:
                    samples = self._samples[key] = self._new_samples(records[0])
                latencies = seconds_of(records)
                samples.requests.add(len(latencies))
                samples.items.add(sum(record.items for record in records))
                samples.seconds.observe_all(latencies)
                if records[0].began:
                    samples.waits.observe_all(seconds_of(records, waiting=True))

    def record(self, account: Account, outcome: Outcome, calls: list[Call], run: Run) -> None:
        """Keeps what the log needs of a run; the calls, and with them their connections, are let go."""
        self._held += run.items * account.item_bytes
        if len(calls) == 1:
            call = calls[0]
            ids, rows, started = [call.id], [call.rows], [call.started]
        else:
            ids = [call.id for call in calls]
            rows = [call.rows for call in calls]
            started = [call.started for call in calls]
        self._keep(
            PredictionRecord(account.served, account.endpoint, account.arm, outcome, ids, rows, started,
                             self._monotonic(), self._now(), run.items, run.inputs, run.outputs, run.began)
        )  # fmt: skip

    def lost(self, account: Account, call: Call, *, late: bool) -> None:
        """Counts a call that never ran."""
        self._metrics.shed.at(account.endpoint, "late" if late else "gone").add()

    def _keep(self, record: PredictionRecord) -> None:
        self._unsettled.append(record)
        if len(self._unsettled) > UNSETTLED or self._held > UNSETTLED_BYTES:
            self._held = 0
            self.settle()

    def account(self, endpoint: str, served: Served, arm: Arm = "primary") -> Account:
        """Where calls of an endpoint to a release are accounted for: the `sink` of calls made elsewhere.

        Whoever submits a call to the lane itself adds one to `Plane.open` and `Account.open` before.
        """
        key = (endpoint, served.digest, arm)
        account = self._accounts.get(key)
        if account is None or account.served is not served:
            if len(self._accounts) > 16 + 6 * len(self.router.endpoints):
                # Of what is served no more nothing is kept: a thousand swaps later there are as many.
                self._accounts = {name: kept for name, kept in self._accounts.items() if kept.open}
            account = self._accounts[key] = Account(self, endpoint, served, arm)
        return account

    def busy(self, name: str) -> bool:
        """Whether calls of an endpoint are open; from any thread."""
        endpoint = self.router.endpoints.get(name)
        return endpoint is not None and any(account.open for _, account in self._accounts_of(endpoint))

    def forget(self, endpoint: Endpoint) -> None:
        """Lets go of what is served no more; calls that are open keep theirs until they are answered."""
        now = self.router.endpoints.get(endpoint.name)
        for key, account in self._accounts_of(endpoint):
            if not account.open and (now is None or now.releases.get(key[1]) is not account.served):
                del self._accounts[key]

    def _accounts_of(self, endpoint: Endpoint) -> list[tuple[tuple[str, Digest, Arm], Account]]:
        arms: tuple[Arm, ...] = ("primary", "shadow")
        keys = [(endpoint.name, digest, arm) for digest in endpoint.releases for arm in arms]
        return [(key, account) for key in keys if (account := self._accounts.get(key)) is not None]

    def _ask_shadow(self, question: Question, shadow: Served) -> None:
        account = self.account(question.endpoint, shadow, "shadow")
        if account.open >= self._shadows:
            self._metrics.shed.at(question.endpoint, "shadow").add()
            return
        call = Call(
            question.inputs, question.rows, _nobody, question.id, self._clock.monotonic(), inf, account
        )
        try:
            check_inputs(shadow, question.inputs)
            account.open += 1
            shadow.lane.submit(call)
        except RequestError:
            account.open -= 1
            self._note(account, "rejected", question)

    def _note(self, account: Account, outcome: Outcome, question: Question) -> None:
        self._keep(
            PredictionRecord(account.served, account.endpoint, account.arm, outcome, [question.id],
                             [question.rows], [question.started], self._clock.monotonic(),
                             self._clock.now(), question.rows, {}, {})
        )  # fmt: skip

    def _new_samples(self, record: PredictionRecord) -> _Samples:
        labels = (record.endpoint, record.by.digest, record.by.version, record.arm, record.outcome)
        return _Samples(
            self._metrics.requests.at(*labels),
            self._metrics.items.at(*labels),
            self._metrics.seconds.at(*labels),
            self._metrics.waits.at(record.endpoint, record.by.digest),
        )


def _nobody(outputs: Tensors | None, error: ModelyardError | None) -> None:
    """Nobody waits for a shadow's answer."""


def check_inputs(served: Served, inputs: Tensors) -> None:
    """Refuses inputs that are not those of the signature; raises `RequestError` naming the first one."""
    specs = served.signature.inputs
    if len(inputs) == len(specs):
        for name, dtype, tail in served.fixed:
            array = inputs.get(name)
            if array is None or array.dtype != dtype or array.shape[1:] != tail:
                break
        else:
            return
    for spec in specs:
        array = inputs.get(spec.name)
        if array is None:
            raise RequestError("an input is missing", value=spec.name, where="inputs",
                               rule=f"{spec.datatype} {_dimensions(spec.shape)}")  # fmt: skip
        if array.dtype != spec.dtype:
            raise RequestError("the input has the wrong datatype", value=str(array.dtype),
                               where=f"inputs ({spec.name!r})", rule=spec.datatype)  # fmt: skip
        if not spec.accepts(array.shape):
            raise RequestError("the input has the wrong shape", value=list(array.shape),
                               where=f"inputs ({spec.name!r})", rule=_dimensions(spec.shape))  # fmt: skip
    if len(inputs) != len(specs):
        known = [spec.name for spec in specs]
        name = next(name for name in inputs if name not in known)
        raise RequestError("the model has no such input", value=name, where="inputs",
                           fix=did_you_mean(name, known))  # fmt: skip


def check_outputs(served: Served, names: list[str]) -> None:
    """Refuses outputs that the model does not have; raises `RequestError` with the nearest name."""
    known = [spec.name for spec in served.signature.outputs]
    for name in names:
        if name not in known:
            raise RequestError("the model has no such output", value=name, where="outputs",
                               fix=did_you_mean(name, known))  # fmt: skip


def _dimensions(shape: tuple[int, ...]) -> str:
    return "[" + ", ".join("N" if size < 0 else str(size) for size in shape) + "]"
