"""The loop: steps in order, each cached by what it reaches, each leaving its verdicts in the ledger."""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from modelyard.core.clock import SYSTEM_CLOCK, Clock
from modelyard.core.digest import digest_json, finite
from modelyard.core.files import file_lock
from modelyard.core.progress import Progress
from modelyard.lifecycle.project import Project, document
from modelyard.lifecycle.reach import package_code
from modelyard.lifecycle.step import Outcome, StepRecord, changes
from modelyard.measure.measurement import Verdict

if TYPE_CHECKING:
    from modelyard.store.store import Store

_KIND = "step"


@dataclass(frozen=True, slots=True)
class Context:
    """What a step works with. `done` holds the records of the steps before it."""

    project: Project
    store: Store
    done: Mapping[str, StepRecord]
    command: str
    clock: Clock = field(default=SYSTEM_CLOCK)
    memo: dict[str, Any] = field(default_factory=dict)
    """What one command need not read twice (the source's table, say); shared by its steps, never stored."""

    def values(self, step: str) -> Mapping[str, Any]:
        """What an earlier step left."""
        return self.done[step].values

    def work(self, step: str) -> Path:
        """A step's own folder for what it must resume from; nothing in it is evidence."""
        folder = self.project.store_root / "work" / step
        folder.mkdir(parents=True, exist_ok=True)
        return folder


@dataclass(frozen=True, slots=True)
class Step:
    """One step; `steps/<name>.py` holds its `run(context, progress)` and perhaps `parts(context)`."""

    name: str
    after: tuple[str, ...]
    options: tuple[str, ...]
    about: str

    @property
    def module(self) -> str:
        return f"modelyard.lifecycle.steps.{self.name}"


STEPS: tuple[Step, ...] = (
    Step("data", (), ("data",), "load, check against the contract, split, profile"),
    Step("train", ("data",), ("train",), "search the hyper-parameters, fit, convert"),
    Step("compress", ("data", "train"), ("compress",), "make it smaller and faster, on paired evidence"),
    Step(
        "validate",
        ("data", "train", "compress"),
        ("gate", "policy", "train"),
        "hold it against every requirement",
    ),
    Step("release", ("data", "train", "compress", "validate"), (), "build, sign, register"),
    Step("serve", ("data", "release"), ("canary",), "canary in the real server, then promote"),
    Step(
        "monitor", ("data", "release", "serve"), ("monitor",), "judge the live predictions, drill the alarms"
    ),
)


class Observer(Protocol):
    """Who looks on. Called in the loop's own thread; must return quickly and must not raise."""

    def started(self, step: Step, reasons: Sequence[str]) -> None:
        """A step is about to run, and why."""
        ...

    def progress(self, step: Step, fraction: float, text: str) -> None:
        """How far a running step is."""
        ...

    def finished(self, step: Step, record: StepRecord, cached: bool) -> None:
        """A step is done, or was found done."""
        ...


def run_loop(
    project: Project,
    store: Store,
    observer: Observer,
    *,
    until: str | None = None,
    command: str = "modelyard run",
    clock: Clock = SYSTEM_CLOCK,
) -> dict[str, StepRecord]:
    """Runs the steps in order, up to `until`, and returns their records.

    A step whose key is unchanged is not run. One loop at a time works on a store; a second waits, then
    raises `StoreBusy`. After an interrupt the finished steps are kept, and the next run goes on from there.
    """
    done: dict[str, StepRecord] = {}
    memo: dict[str, Any] = {}
    lock, holder = project.store_root / "run.lock", f"{command!r} (process {os.getpid()})"
    with file_lock(lock, wait=5.0, what="this project's store", holder=holder):
        for step in STEPS:
            context = Context(project, store, done, command, clock, memo)
            record, reasons = inspect(context, step)
            cached = record is not None and not reasons
            if record is None or reasons:
                observer.started(step, reasons)
                record = _execute(context, step, observer)
            done = {**done, step.name: record}
            observer.finished(step, record, cached)
            if record.stops or step.name == until:
                break
    return done


def inspect(context: Context, step: Step) -> tuple[StepRecord | None, list[str]]:
    """The stored record of a step, and why it would have to run again (empty: it would not)."""
    record = stored_record(context.project, context.store, step.name)
    reasons = changes(
        record, _parts(context, step), now=context.clock.now(), expires=context.project.score.expires
    )
    return record, reasons


def stored_record(project: Project, store: Store, step: str) -> StepRecord | None:
    """What a step left when it last ran, whether or not that still holds; nothing before the first run."""
    value = store.records.get_document(_KIND, f"{project.name}/{step}")
    return StepRecord.from_json(value) if isinstance(value, dict) else None


def _execute(context: Context, step: Step, observer: Observer) -> StepRecord:
    began = context.clock.monotonic()
    run: Callable[[Context, Progress], Outcome] = importlib.import_module(step.module).run
    outcome = run(context, lambda fraction, text: observer.progress(step, fraction, text))
    entries = [_append(context, subject, verdict) for subject, verdict in outcome.verdicts]
    record = StepRecord(
        name=step.name,
        # Taken again: the data step may have written the contract that its own key holds.
        parts=_parts(context, step),
        values=cast("dict[str, Any]", finite(outcome.values)),
        headline=outcome.headline,
        seconds=context.clock.monotonic() - began,
        finished=context.clock.now(),
        stops=outcome.stops,
        entries=tuple(entries),
    )
    context.store.records.put_document(_KIND, _key(context.project, step), record.to_json())
    return record


def _append(context: Context, subject: str, verdict: Verdict) -> int:
    return context.store.ledger.append_verdict(subject, verdict, by=context.command).index


def _key(project: Project, step: Step) -> str:
    return f"{project.name}/{step.name}"


def _parts(context: Context, step: Step) -> dict[str, str]:
    parts: dict[str, str] = {"[project] task": context.project.task}
    for section in step.options:
        for key, value in document(context.project, section).items():
            parts[f"[{section}] {key}"] = json.dumps(value, sort_keys=True)
    rooms: dict[str, dict[str, str]] = {}
    for module, digest in package_code(step.module).items():
        room = ".".join(module.split(".")[:2])
        rooms.setdefault(room, {})[module] = digest
    parts |= {f"the code of {room}": digest_json(files) for room, files in rooms.items()}
    parts |= {f"the result of {name}": context.done[name].digest for name in step.after}
    own = getattr(importlib.import_module(step.module), "parts", None)
    return parts | (own(context) if own is not None else {})
