"""Starting, finding and stopping the serving process from outside of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from modelyard.serve.options import ServeOptions


@dataclass(frozen=True, slots=True)
class Running:
    """A serving process that answers."""

    pid: int
    url: str
    log: Path


def start(options: ServeOptions, *, wait: float = 30.0) -> Running:
    """Starts the service as a process of its own and returns once it is ready to answer.

    The process outlives its starter. A service that already runs on this state folder is returned as it
    is when its options are the same. Raises `ServeError` with the end of its log when it exits, or is not
    ready after `wait` seconds (it is stopped then).
    """
    raise NotImplementedError


def stop(state: Path, *, wait: float = 30.0) -> bool:
    """Stops the service of a state folder gently; `False` when none was running.

    Answers in work are finished and the prediction log is flushed. What has not ended after `wait`
    seconds is killed.
    """
    raise NotImplementedError


def running(state: Path) -> Running | None:
    """The service of a state folder, or `None`; a pid that now belongs to another program is recognised."""
    raise NotImplementedError
