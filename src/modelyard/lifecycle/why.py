"""Explains the cache: for each step whether it would run, and which part of its key changed."""

from __future__ import annotations

from dataclasses import dataclass

from modelyard.core.clock import SYSTEM_CLOCK, Clock
from modelyard.core.errors import ProjectError
from modelyard.core.names import did_you_mean
from modelyard.lifecycle.loop import STEPS, Context, inspect
from modelyard.lifecycle.project import Project
from modelyard.lifecycle.step import StepRecord
from modelyard.store.store import Store


@dataclass(frozen=True, slots=True)
class Reasons:
    """Why a step would run; no reasons mean that it is cached."""

    step: str
    reasons: tuple[str, ...]

    @property
    def cached(self) -> bool:
        return not self.reasons


def explain(
    project: Project, store: Store, only: str | None = None, *, clock: Clock = SYSTEM_CLOCK
) -> list[Reasons]:
    """The reasons of every step, or of one, in order. Nothing is run."""
    names = [step.name for step in STEPS]
    if only is not None and only not in names:
        raise ProjectError("there is no such step", value=only, fix=did_you_mean(only, names))
    done: dict[str, StepRecord] = {}
    found: list[Reasons] = []
    running: list[str] = []
    memo: dict[str, object] = {}
    for step in STEPS:
        waiting = [name for name in step.after if name in running]
        missing = [name for name in step.after if name not in done]
        if missing:
            reasons = [f"{name} has to run first" for name in missing]
        else:
            record, reasons = inspect(Context(project, store, done, "modelyard why", clock, memo), step)
            reasons += [f"{name} runs before it" for name in waiting]
            if record is not None:
                done = {**done, step.name: record}
        if reasons:
            running.append(step.name)
        found.append(Reasons(step.name, tuple(reasons)))
    return [item for item in found if only in (None, item.step)]
