"""The serving plane: a request's tensors in, a release's answer out. It knows no protocol.

A door asks the router which release it is, builds the tensors as its protocol says, then calls `ask`. The
answer comes through the callback, on the event loop's thread, exactly once. Shadows are asked behind the
answering release, and what becomes of them is only logged.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count
from typing import Protocol

import msgspec

from modelyard.core.clock import Clock
from modelyard.core.digest import Digest
from modelyard.core.errors import ModelyardError, RequestError
from modelyard.core.names import did_you_mean
from modelyard.core.spec import Tensors
from modelyard.serve.lane import Call
from modelyard.serve.metrics import Counter, Histogram, Metrics
from modelyard.serve.pool import Served
from modelyard.serve.record import Arm, Outcome, PredictionRecord
from modelyard.serve.router import Chosen, Router


class Question(msgspec.Struct, frozen=True, gc=False):
    """A request as the plane takes it; the inputs must not be changed afterwards.

    `started` is the clock's `monotonic` at the moment the request was complete.
    """

    endpoint: str
    id: str
    inputs: Tensors
    rows: int
    started: float


class Answer(Protocol):
    """Who waits for an answer. Exactly one of the two arguments is not `None`."""

    def __call__(self, outputs: Tensors | None, error: ModelyardError | None) -> None: ...


class Recorder(Protocol):
    """Where records go. Called for every request; must be quick and must not raise."""

    def append(self, record: PredictionRecord) -> None: ...


@dataclass(frozen=True, slots=True)
class _Samples:
    """The metrics of one release, arm and outcome, looked up once."""

    requests: Counter
    items: Counter
    seconds: Histogram


class Plane:
    """Answers for the endpoints of a router. One for each process; used on the event loop's thread."""

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
        self._ids = (f"{name}-{number:x}" for number in count(1))
        self._samples: dict[tuple[str, Digest, Arm, Outcome], _Samples] = {}
        self._shadows = shadows
        self._shadowing = 0
        self.open = 0
        """Requests that wait for their answer."""

    def new_id(self) -> str:
        """An id that no other request of any process has."""
        return next(self._ids)

    def ask(self, question: Question, chosen: Chosen, answer: Answer) -> None:
        """Asks the chosen release; `answer` is called later, never before this returns.

        Raises `RequestError` (400) when the inputs do not fit the signature, naming the input, and (503)
        when too many wait; `answer` is not called then.
        """
        served = chosen.answer
        check_inputs(served, question.inputs)

        def done(outputs: Tensors | None, error: ModelyardError | None) -> None:
            self.open -= 1
            seconds = self._clock.monotonic() - question.started
            answer(outputs, error)
            self._record(
                question, served, "ok" if error is None else "failed", seconds, outputs=outputs or {}
            )

        served.lane.submit(Call(question.inputs, question.rows, done))
        self.open += 1
        for shadow in chosen.shadows:
            self._ask_shadow(question, shadow)

    def reject(self, question: Question, served: Served) -> None:
        """Records that a request to an endpoint was refused before it reached the model."""
        self._record(question, served, "rejected", self._clock.monotonic() - question.started)

    def _ask_shadow(self, question: Question, shadow: Served) -> None:
        if self._shadowing >= self._shadows:
            self._metrics.shed.at(question.endpoint, "shadow").add()
            return
        started = self._clock.monotonic()

        def done(outputs: Tensors | None, error: ModelyardError | None) -> None:
            self._shadowing -= 1
            seconds = self._clock.monotonic() - started
            outcome: Outcome = "ok" if error is None else "failed"
            self._record(question, shadow, outcome, seconds, arm="shadow", outputs=outputs or {})

        try:
            check_inputs(shadow, question.inputs)
            shadow.lane.submit(Call(question.inputs, question.rows, done))
            self._shadowing += 1
        except RequestError:
            self._record(question, shadow, "rejected", 0.0, arm="shadow")

    def _record(
        self,
        question: Question,
        served: Served,
        outcome: Outcome,
        seconds: float,
        *,
        arm: Arm = "primary",
        outputs: Tensors | None = None,
    ) -> None:
        endpoint, rows = question.endpoint, question.rows
        key = (endpoint, served.digest, arm, outcome)
        samples = self._samples.get(key)
        if samples is None:
            samples = self._samples[key] = self._new_samples(endpoint, served, arm, outcome)
        samples.requests.add()
        samples.items.add(rows)
        samples.seconds.observe(seconds)
        self._recorder.append(
            PredictionRecord(
                question.id,
                self._clock.now() - seconds,
                served,
                endpoint,
                arm,
                outcome,
                seconds,
                rows,
                {} if outcome == "rejected" else question.inputs,
                outputs or {},
            )
        )

    def _new_samples(self, endpoint: str, served: Served, arm: Arm, outcome: Outcome) -> _Samples:
        labels = (endpoint, served.digest, served.version, arm, outcome)
        return _Samples(
            self._metrics.requests.at(*labels),
            self._metrics.items.at(*labels),
            self._metrics.seconds.at(*labels),
        )


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
