"""One model's way from waiting calls to answers: batch, run, hand each caller its own rows."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from math import inf
from time import perf_counter
from types import MappingProxyType
from typing import Any, Protocol

import msgspec
import numpy as np

from modelyard.core.errors import ModelError, ModelyardError, RequestError
from modelyard.core.spec import Tensors
from modelyard.model.runtime import Session
from modelyard.serve.answered import Answered
from modelyard.serve.batcher import Batcher
from modelyard.serve.cost import CostModel
from modelyard.serve.isolation import same_answers
from modelyard.serve.metrics import Counter, Histogram

INLINE_SECONDS = 0.001
"""A single item that costs less runs on the event loop: a thread hop would cost more than it frees."""
INLINE_RUN_SECONDS = 0.005
"""Longest run on the event loop: what other connections wait meanwhile."""
THREAD_RUN_SECONDS = 0.100
"""Longest run in a thread, unless one request alone takes longer: what other models wait meanwhile."""
RUN_BYTES = 32 << 20
"""Input bytes of one run, unless one request alone has more."""
WHYS = ("drained", "full", "deadline", "shape")
"""Why a run is no larger: nothing else waited, the limit, the deadline of its first call, other shapes."""
QUEUED = 3
"""A run may hold one in so many of the items that wait, if that is more than what pays: it delays few."""
SLACK = 1.2
"""Times the expected wait that a request must be able to wait."""
CROWD = 64
"""When so many items wait, it is worth knowing whether a client is still there."""
PROOF = 512
"""One in so many batches is held against one of its calls run alone, the sixteenth for the first time."""

Done = Callable[[Tensors | None, ModelyardError | None], None]


class Executor(Protocol):
    """Where a lane's work happens; its methods are called on the event loop's thread only."""

    @property
    def soon(self) -> Callable[[Callable[[], None]], object]:
        """Calls what it is given on the loop, after what is ready now; that must not raise."""
        ...

    def offload(
        self, work: Callable[[], Any], done: Callable[[Any], None], *, owner: object = None, cost: float = 0.0
    ) -> None:
        """Calls `work` in another thread, then `done` with its result on the loop; neither may raise.

        Of several owners that wait, the one that has used the least time goes first; `cost` is what the
        work is expected to take, in seconds.
        """
        ...


class Sink(Protocol):
    """Who keeps account of calls; called on the event loop's thread, after the callers have their answers."""

    def ran(self, run: Run) -> None:
        """The calls of a run were answered, or failed with `run.error`."""
        ...

    def left(self, call: Call, *, late: bool) -> None:
        """A call never ran: its caller had gone, or its deadline had passed (`late`)."""
        ...


class Call(msgspec.Struct, gc=False, eq=False):
    """A request's inputs on their way through a lane, and who waits for the outputs.

    `done` is called once, with outputs or an error, unless `gone` was set before the call ran. `started`
    and `deadline` are the monotonic clock's; a call whose deadline passes while it waits is not run.
    """

    inputs: Tensors
    rows: int
    done: Done
    id: str = ""
    started: float = 0.0
    deadline: float = inf
    sink: Sink | None = None
    gone: bool = False


class Run(msgspec.Struct, gc=False, eq=False):
    """Calls that the model answered together; `outputs` are those of all items, in the order of the calls."""

    calls: list[Call]
    items: int
    inputs: Tensors
    outputs: Tensors
    error: ModelyardError | None = None
    began: float = 0.0
    """When the calls had waited long enough, by the monotonic clock."""


class Lane:
    """Runs one session for many callers; one run at a time, so that work gathers while it is busy."""

    def __init__(
        self,
        session: Session,
        executor: Executor,
        *,
        batch: int,
        room: int,
        inline: bool,
        batchable: bool,
        run_seconds: Histogram,
        batch_items: Histogram,
        item_seconds: float = 1e-4,
        wait: float = inf,
        monotonic: Callable[[], float] = perf_counter,
        broken: Counter | None = None,
        released: Mapping[str, Counter] = MappingProxyType({}),
    ) -> None:
        self._session = session
        self._executor = executor
        self._batcher: Batcher[Call] = Batcher(room)
        self._names = tuple(spec.name for spec in session.signature.inputs)
        self._ragged = any(-1 in spec.shape[1:] for spec in session.signature.inputs)
        self._busy = False
        self._until = 0.0
        self._run_seconds = run_seconds
        self._batch_items = batch_items
        self._longest = INLINE_RUN_SECONDS if inline else THREAD_RUN_SECONDS
        self._batch = batch
        self._wait = wait
        self._monotonic = monotonic
        self._soon_done = 0
        self._batches = 0
        self._broken = broken
        self._released = released
        self._hurried = False
        self.item_bytes = sum(
            spec.dtype.itemsize * int(np.prod(spec.shape[1:], dtype=np.int64)) * (-1 not in spec.shape[1:])
            for spec in session.signature.inputs
        )
        self.inline = inline
        self.batchable = batchable
        self.why_single = "" if batchable else "its answers depend on the batch"
        self.cost = CostModel(item_seconds)
        self.cap = 1
        """Items of a run from which on more would gain little: by options, bytes, and what a run costs."""
        self._most = 1
        """Items of a run when many wait."""
        self._set_cap()

    @property
    def waiting(self) -> int:
        """Items that wait for the model."""
        return self._batcher.waiting

    @property
    def slow(self) -> bool:
        """Whether a call that was just taken waits so long that its caller may leave meanwhile."""
        return not self.inline or self._batcher.waiting > CROWD

    @property
    def wait_seconds(self) -> float:
        """How long a call that came now would wait for its run to begin, by the cost of what is before it."""
        running = max(0.0, self._until - self._monotonic()) if self._busy else 0.0
        return running + self.cost.backlog(self._batcher.waiting, self.cap)

    def separate(self, why: str) -> None:
        """Runs each call alone from now on."""
        self.batchable = False
        self.why_single = why
        self._set_cap()

    def submit(self, call: Call) -> None:
        """Takes a call whose inputs fit the signature.

        Raises `RequestError` 503 when too many wait, or when it could not be answered in time.
        """
        batcher = self._batcher
        if self._busy:
            self.check(call.rows, call.deadline)
        elif call.rows > batcher.room:
            raise self._full()
        shape: Hashable = None
        if self._ragged:
            shape = tuple(call.inputs[name].shape[1:] for name in self._names)
        batcher.offer(call, shape)
        if not self._busy:
            self._busy = True
            self._executor.soon(self._next)

    def check(self, rows: int, deadline: float = inf) -> None:
        """Raises `RequestError` 503 when so many items could not be taken now, or not be answered in time."""
        batcher = self._batcher
        if batcher.waiting and batcher.waiting + rows > batcher.room:
            raise self._full()
        if deadline == inf and batcher.waiting < self._soon_done:
            return
        wait = self.wait_seconds
        now = self._monotonic()
        # Its run will hold what waits with it: who may only just be in time alone would break every batch up.
        run = self.cost.seconds(max(rows, min(self._cap_of(batcher.waiting), batcher.waiting + rows)))
        if wait > self._wait or now + SLACK * wait + run > deadline:
            raise RequestError("the service is at its limit, the answer would come too late", status=503,
                               value=f"{wait:.3f} s to wait", fix="try again later",
                               rule=f"within {min(self._wait, deadline - now):.3f} s",
                               retry_after=max(wait, 0.001))  # fmt: skip

    def _full(self) -> RequestError:
        return RequestError("the service is at its limit", status=503, value=self._batcher.waiting,
                            rule=f"at most {self._batcher.room} items wait", fix="try again later",
                            retry_after=max(self.wait_seconds, 0.001))  # fmt: skip

    def _set_cap(self) -> None:
        cost = self.cost
        most = min(self._batch, cost.items_within(self._longest))
        if self.item_bytes:
            most = min(most, RUN_BYTES // self.item_bytes)
        self._most = most = max(1, most) if self.batchable else 1
        self.cap = cap = min(most, max(4, cost.worthwhile))
        if self._wait == inf:
            self._soon_done = self._batcher.room
        else:
            self._soon_done = int((self._wait - self._longest) / (cost.item + cost.fixed / cap))

    def _cap_of(self, waiting: int) -> int:
        """Items of the next run, at most, when so many wait."""
        return max(self.cap, min(self._most, waiting // QUEUED))

    def _next(self) -> None:
        batch, items = self._batcher.take(self._size, self._monotonic())
        for call, late in self._batcher.left:
            self._leave(call, late)
        self._batcher.left.clear()
        if not batch:
            self._busy = False
            return
        if self._released:
            self._released[self._why()].value += 1.0
        if self.inline:
            self._finish(self._run(batch, items))
        else:
            seconds = self.cost.seconds(items)
            self._until = self._monotonic() + seconds
            self._executor.offload(lambda: self._run(batch, items), self._finish, owner=self, cost=seconds)

    def _why(self) -> str:
        """Of `WHYS`, the one that holds for the batch that was just taken."""
        if not self._batcher.waiting:
            return "drained"
        if not self._batcher.cut:
            return "shape"
        return "deadline" if self._hurried else "full"

    def _size(self, head: Call, now: float) -> int:
        """Items of the run that begins with this call."""
        full = self._cap_of(self._batcher.waiting)
        if self._ragged and self.batchable:
            size = sum(values.nbytes for values in head.inputs.values()) // head.rows
            full = min(full, max(1, RUN_BYTES // max(1, size)))
        cap = full if head.deadline == inf else min(full, self.cost.items_within(head.deadline - now))
        self._hurried = cap < full
        return cap

    def _leave(self, call: Call, late: bool) -> None:
        if late:
            call.done(None, RequestError("the deadline passed while the request waited", status=504,
                                         rule="an answer within the client's timeout",
                                         fix="try again later, or allow more time"))  # fmt: skip
        if call.sink is not None:
            call.sink.left(call, late=late)

    def _run(self, batch: list[Call], items: int) -> list[Run]:
        """The batch as one run, or as many when it failed together; never raises."""
        started, began = perf_counter(), self._monotonic()
        try:
            runs = [self._run_together(batch, items)]
            if len(batch) > 1:
                if self._batches % PROOF == 15 and not self._proved(runs[0]):
                    runs = [self._run_alone(call) for call in batch]
                self._batches += 1
        except Exception as error:  # whatever an engine raises belongs to its calls, not to the loop.
            # One bad item must not fail its neighbours: each is tried alone.
            if len(batch) > 1:
                runs = [self._run_alone(call) for call in batch]
            else:
                runs = [Run(batch, items, batch[0].inputs, {}, _as_error(error))]
        seconds = perf_counter() - started
        self._run_seconds.observe(seconds)
        self._batch_items.observe(items)
        if len(runs) == 1:
            self.cost.observe(items, seconds)
        for run in runs:
            run.began = began
        return runs

    def _run_together(self, batch: list[Call], items: int) -> Run:
        if len(batch) == 1:
            inputs = batch[0].inputs
        else:
            inputs = {name: np.concatenate([call.inputs[name] for call in batch]) for name in self._names}
        outputs = self._session.run(inputs)
        for name, values in outputs.items():
            if values.ndim == 0 or len(values) != items:
                raise _wrong_length(name, values, items)
        return Run(batch, items, inputs, outputs)

    def _proved(self, run: Run) -> bool:
        """Whether one of the run's calls gets the same answer alone; if not, the lane stops batching."""
        place = self._batches // PROOF % len(run.calls)
        start = sum(call.rows for call in run.calls[:place])
        call = run.calls[place]
        alone = self._session.run(call.inputs)
        if same_answers(alone, {n: values[start : start + call.rows] for n, values in run.outputs.items()}):
            return True
        self.separate("under load an answer depended on the others in its batch")
        if self._broken is not None:
            self._broken.add()
        return False

    def _run_alone(self, call: Call) -> Run:
        try:
            return self._run_together([call], call.rows)
        except Exception as error:  # as in `_run`
            return Run([call], call.rows, call.inputs, {}, _as_error(error))

    def _finish(self, runs: list[Run]) -> None:
        # The next run is started first: answering is work for the loop, running may be for a thread.
        if not self.inline:
            self._rest()
            self._deliver(runs)
            return
        self._deliver(runs)
        self._rest()

    def _rest(self) -> None:
        """Goes on with what waits, or is free."""
        self._set_cap()
        if not self._batcher.waiting:
            self._busy = False
        elif self.inline:
            self._executor.soon(self._next)
        else:
            self._next()

    def _deliver(self, runs: list[Run]) -> None:
        for run in runs:
            calls, outputs, error = run.calls, run.outputs, run.error
            if error is not None:
                for call in calls:
                    call.done(None, error)
            elif len(calls) == 1:
                calls[0].done(Answered(outputs, outputs, 0), None)
            else:
                start = 0
                texts: dict[str, list[bytes]] = {}
                for call in calls:
                    end = start + call.rows
                    part = {name: values[start:end] for name, values in outputs.items()}
                    call.done(Answered(part, outputs, start, texts), None)
                    start = end
            _account(run)


def _account(run: Run) -> None:
    """Tells the sinks; a run that several share is told in parts."""
    calls = run.calls
    sink = calls[0].sink
    if all(call.sink is sink for call in calls):
        if sink is not None:
            sink.ran(run)
        return
    start = 0
    for call in calls:
        end = start + call.rows
        if call.sink is not None:
            outputs = {name: values[start:end] for name, values in run.outputs.items()}
            call.sink.ran(Run([call], call.rows, call.inputs, outputs, run.error, run.began))
        start = end


def _wrong_length(name: str, values: np.ndarray, items: int) -> ModelError:
    return ModelError(f"output {name!r} does not answer item by item", value=values.shape,
                      rule=f"{items} items")  # fmt: skip


def _as_error(error: Exception) -> ModelyardError:
    if isinstance(error, ModelyardError):
        return error
    return ModelError("the model failed", value=str(error)[:200])
