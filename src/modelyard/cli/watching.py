"""What a person sees while the loop runs: a row a step, and a live bar for what takes over a second."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from modelyard.core.unit import show_seconds

if TYPE_CHECKING:
    from modelyard.lifecycle.loop import Step
    from modelyard.lifecycle.step import StepRecord

_BAR = 24
_WIDTH = 96


class Watcher:
    """Looks on and says nothing; knows whether any step ran."""

    def __init__(self) -> None:
        self.ran = False

    def started(self, step: Step, reasons: Sequence[str]) -> None:
        self.ran = True

    def progress(self, step: Step, fraction: float, text: str) -> None: ...

    def finished(self, step: Step, record: StepRecord, cached: bool) -> None: ...


class Terminal(Watcher):
    """Draws on a terminal; on anything else it prints one finished row a step."""

    def __init__(self, *, live: bool | None = None) -> None:
        super().__init__()
        self._live = sys.stdout.isatty() if live is None else live
        self._began = 0.0
        self._drawn = False

    def started(self, step: Step, reasons: Sequence[str]) -> None:
        super().started(step, reasons)
        self._began = time.monotonic()

    def progress(self, step: Step, fraction: float, text: str) -> None:
        if not self._live or time.monotonic() - self._began < 1.0:
            return
        full = int(_BAR * min(max(fraction, 0.0), 1.0))
        bar = "━" * full + click.style("━" * (_BAR - full), dim=True)
        spent = show_seconds(time.monotonic() - self._began)
        click.echo(f"\r\033[2K{step.name:<10} {bar} {fraction:4.0%}  {text[:44]}  {spent}", nl=False)
        self._drawn = True

    def finished(self, step: Step, record: StepRecord, cached: bool) -> None:
        if self._drawn:
            click.echo("\r\033[2K", nl=False)
            self._drawn = False
        took = "cached" if cached else show_seconds(record.seconds)
        headline = record.headline
        room = _WIDTH - len(took)
        first, rest = _fold(headline, room)
        click.echo(
            f"{click.style(f'{step.name:<10}', bold=True)} {first:<{room}} {click.style(took, dim=True)}"
        )
        for line in rest:
            click.echo(f"{'':<10} {line}")
        if record.stops:
            click.echo(click.style(f"{'':<10} stopped: {record.stops}", fg="red"))


def observer(as_json: bool) -> Watcher:
    """Who looks on: a person, or a machine that reads the end only."""
    return Watcher() if as_json else Terminal()


def _fold(text: str, room: int) -> tuple[str, list[str]]:
    """Breaks a headline at its separators so that the time stays in its column."""
    lines = [""]
    for part in text.split(" · "):
        joined = f"{lines[-1]} · {part}" if lines[-1] else part
        if len(joined) > room and lines[-1]:
            lines.append(part)
        else:
            lines[-1] = joined
    return lines[0], lines[1:]
