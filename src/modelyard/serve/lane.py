"""One model's way from waiting calls to answers: batch, run, hand each caller its own rows."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from time import perf_counter
from typing import Any, Protocol

import numpy as np

from modelyard.core.errors import ModelError, ModelyardError, RequestError
from modelyard.core.spec import Tensors
from modelyard.model.runtime import Session
from modelyard.serve.batcher import Batcher
from modelyard.serve.metrics import Histogram

INLINE_SECONDS = 0.001
"""A single item that costs less runs on the event loop: a thread hop would cost more than it frees."""


class Executor(Protocol):
    """Where a lane's work happens; its methods are called on the event loop's thread only."""

    @property
    def soon(self) -> Callable[[Callable[[], None]], object]:
        """Calls what it is given on the loop, after what is ready now; that must not raise."""
        ...

    def offload(self, work: Callable[[], Any], done: Callable[[Any], None]) -> None:
        """Calls `work` in another thread, then `done` with its result on the loop; neither may raise."""
        ...


class Call:
    """A request's inputs on their way through a lane, and who waits for the outputs."""

    __slots__ = ("done", "gone", "inputs", "rows")

    def __init__(
        self, inputs: Tensors, rows: int, done: Callable[[Tensors | None, ModelyardError | None], None]
    ) -> None:
        self.inputs = inputs
        self.rows = rows
        self.done = done
        self.gone = False


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
    ) -> None:
        self._session = session
        self._executor = executor
        self._batcher: Batcher[Call] = Batcher(batch if batchable else 1, room)
        self._names = tuple(spec.name for spec in session.signature.inputs)
        self._ragged = any(-1 in spec.shape[1:] for spec in session.signature.inputs)
        self._busy = False
        self._run_seconds = run_seconds
        self._batch_items = batch_items
        self._retry_seconds = 0.0
        self.inline = inline
        self.batchable = batchable

    @property
    def waiting(self) -> int:
        """Items that wait for the model."""
        return self._batcher.waiting

    def submit(self, call: Call) -> None:
        """Takes a call whose inputs fit the signature; raises `RequestError` 503 when too many wait."""
        shape: Hashable = None
        if self._ragged:
            shape = tuple(call.inputs[name].shape[1:] for name in self._names)
        if not self._batcher.offer(call, shape):
            wait = max(self._retry_seconds * self._batcher.waiting, 0.001)
            raise RequestError("the service is at its limit", status=503, value=self._batcher.waiting,
                               rule=f"at most {self._batcher.room} items wait", fix="try again later",
                               retry_after=wait)  # fmt: skip
        if not self._busy:
            self._busy = True
            self._executor.soon(self._next)

    def _next(self) -> None:
        batch = self._batcher.take()
        if not batch:
            self._busy = False
            return
        if self.inline:
            self._finish(batch, self._run(batch))
        else:
            self._executor.offload(lambda: self._run(batch), lambda results: self._finish(batch, results))

    def _run(self, batch: list[Call]) -> list[Tensors | ModelyardError]:
        """The outputs of each call, or its error; never raises."""
        started = perf_counter()
        try:
            results: list[Tensors | ModelyardError] = list(self._run_together(batch))
        except Exception as error:  # whatever an engine raises belongs to its calls, not to the loop.
            # One bad item must not fail its neighbours: each is tried alone.
            results = [self._run_alone(call) for call in batch] if len(batch) > 1 else [_as_error(error)]
        seconds = perf_counter() - started
        rows = sum(call.rows for call in batch)
        self._run_seconds.observe(seconds)
        self._batch_items.observe(rows)
        self._retry_seconds = seconds / rows
        return results

    def _run_together(self, batch: list[Call]) -> list[Tensors]:
        if len(batch) == 1:
            outputs = self._session.run(batch[0].inputs)
            _check_rows(outputs, batch[0].rows)
            return [outputs]
        inputs = {name: np.concatenate([call.inputs[name] for call in batch]) for name in self._names}
        outputs = self._session.run(inputs)
        _check_rows(outputs, sum(call.rows for call in batch))
        results = []
        start = 0
        for call in batch:
            end = start + call.rows
            results.append({name: values[start:end] for name, values in outputs.items()})
            start = end
        return results

    def _run_alone(self, call: Call) -> Tensors | ModelyardError:
        try:
            return self._run_together([call])[0]
        except Exception as error:  # as in `_run`
            return _as_error(error)

    def _finish(self, batch: list[Call], results: list[Tensors | ModelyardError]) -> None:
        # The next run is started first: answering is work for the loop, running may be for a thread.
        if self._batcher.waiting:
            if self.inline:
                self._executor.soon(self._next)
            else:
                self._next()
        else:
            self._busy = False
        for call, result in zip(batch, results, strict=True):
            if isinstance(result, dict):
                call.done(result, None)
            else:
                call.done(None, result)


def _check_rows(outputs: Tensors, rows: int) -> None:
    for name, values in outputs.items():
        if values.ndim == 0 or len(values) != rows:
            raise ModelError(f"output {name!r} does not answer item by item", value=values.shape,
                             rule=f"{rows} items")  # fmt: skip


def _as_error(error: Exception) -> ModelyardError:
    if isinstance(error, ModelyardError):
        return error
    return ModelError("the model failed", value=str(error)[:200])
