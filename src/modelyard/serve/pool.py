"""Releases that are loaded: made ready from a verified bundle, proved, warmed, and only then served."""

from __future__ import annotations

import importlib
import threading
from dataclasses import dataclass, field
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, WeakValueDictionary

import numpy as np

from modelyard.core.digest import Digest
from modelyard.core.errors import ReleaseError
from modelyard.core.spec import Signature, Tensors
from modelyard.model.chosen_runtime import HOME, ChosenRuntime
from modelyard.model.model import Model
from modelyard.model.runtime import RuntimeOptions, Session
from modelyard.serve.isolation import TOLERANCE, independent
from modelyard.serve.lane import INLINE_SECONDS, WHYS, Executor, Lane
from modelyard.serve.memory import in_use
from modelyard.serve.metrics import Histogram, Metrics
from modelyard.serve.options import Limits

if TYPE_CHECKING:
    from modelyard.data.contract import Contract
    from modelyard.release.load import LoadedRelease

_PROBES = 4
_TIMINGS = 5


@dataclass(frozen=True, slots=True)
class Served:
    """One release, loaded and proved, with the lane that runs it."""

    digest: Digest
    name: str
    version: str
    task: str
    labels: tuple[str, ...]
    output: str
    """The output that answers: `probabilities` or `prediction`."""
    signature: Signature
    contract: Contract
    lane: Lane
    session: Session
    item_seconds: float
    """What one item costs on this machine."""
    bytes: int = 0
    """What the session holds, measured as it was loaded; never less than the model's file."""
    runs: Histogram = field(default_factory=Histogram)
    """The seconds of its runs: a sum that has grown says that it was used."""
    fixed: tuple[tuple[str, np.dtype[Any], tuple[int, ...]], ...] = field(init=False)
    """Each input's name, type and shape of one item, for the check on the request's path."""

    def __post_init__(self) -> None:
        specs = self.signature.inputs
        object.__setattr__(self, "fixed", tuple((spec.name, spec.dtype, spec.shape[1:]) for spec in specs))


def make_ready(
    endpoint: str,
    release: LoadedRelease,
    executor: Executor,
    metrics: Metrics,
    *,
    limits: Limits,
    threads: int = 1,
    runtime: ChosenRuntime | None = None,
) -> Served:
    """Loads a release on the runtime that it names (or another), holds its answers against those of training
    time, warms and times it.

    Raises `ReleaseError` when an answer differs by more than `TOLERANCE`, `ModelError` when it cannot be
    loaded or run, `MissingExtra` when its runtime is not installed here. A model whose answers depend on
    their neighbours in a batch is found here and is never batched.
    """
    model: Model = release.model
    session, taken = _session(model, runtime or release.info.runtime, threads)
    answers = release.answers
    _compare(session, answers.inputs, np.asarray(answers.outputs), model.output)
    probe = {name: values[:_PROBES] for name, values in answers.inputs.items()}
    single = {name: values[:1] for name, values in probe.items()}
    seconds = _time(session, single)
    runs = metrics.run_seconds.at(endpoint, release.digest)
    lane = Lane(
        session,
        executor,
        batch=limits.batch,
        room=limits.queue,
        inline=seconds < INLINE_SECONDS,
        batchable=independent(session, probe),
        run_seconds=runs,
        batch_items=metrics.batch_items.at(endpoint, release.digest),
        item_seconds=seconds,
        wait=limits.wait_seconds,
        broken=metrics.broken.at(endpoint, release.digest),
        released={why: metrics.released.at(endpoint, release.digest, why) for why in WHYS},
    )
    return Served(
        digest=release.digest,
        name=release.info.name,
        version=str(release.info.version),
        task=model.task,
        labels=model.labels,
        output=model.output,
        signature=model.signature,
        contract=release.contract,
        lane=lane,
        session=session,
        item_seconds=seconds,
        bytes=taken,
        runs=runs,
    )


_SESSIONS: WeakValueDictionary[tuple[str, str, int], Session] = WeakValueDictionary()
_BYTES: WeakKeyDictionary[Session, int] = WeakKeyDictionary()
_LOADING = threading.Lock()


def _session(model: Model, runtime: ChosenRuntime, threads: int) -> tuple[Session, int]:
    """The model's session and the bytes that it holds.

    All releases with the same model share one, until the last of them is dropped.
    """
    key = (model.digest, str(runtime), threads)
    # One at a time, so that what the process has grown by is this one's.
    with _LOADING:
        session = _SESSIONS.get(key)
        if session is None:
            if runtime.name == HOME:
                # What the engine takes for itself is not the first model's.
                importlib.import_module(HOME)
            before = in_use()
            # A thousand arenas would each keep their largest burst: memory comes from the C library.
            session = _SESSIONS[key] = runtime.load(model, RuntimeOptions(threads=threads, arena=False))
            _BYTES[session] = max(len(model.onnx), in_use() - before)
        return session, _BYTES[session]


def _compare(session: Session, inputs: Tensors, expected: np.ndarray, output: str) -> None:
    found = session.run(inputs)[output]
    if found.shape != expected.shape:
        raise ReleaseError("the release answers in another shape than at training time", value=found.shape,
                           rule=str(expected.shape))  # fmt: skip
    if not np.allclose(found, expected, rtol=TOLERANCE, atol=TOLERANCE, equal_nan=True):
        worst = float(np.nanmax(np.abs(found.astype(np.float64) - expected)))
        raise ReleaseError(
            "the release does not answer as it did at training time",
            value=f"a difference of {worst:.3g}",
            rule=f"at most {TOLERANCE:g}",
            fix="build the release again on this kind of machine, or look for a changed engine version",
        )


def _time(session: Session, single: Tensors) -> float:
    timings = []
    for _ in range(_TIMINGS):
        started = perf_counter()
        session.run(single)
        timings.append(perf_counter() - started)
    return median(timings)
