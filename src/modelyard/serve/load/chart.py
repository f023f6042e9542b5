"""Latency against load as text for a terminal, and as SVG or PNG."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from modelyard.core.errors import ServeError
from modelyard.core.require import require
from modelyard.core.unit import show_seconds
from modelyard.serve.load.sweep import Sweep

_LINES = {"p50": (0.5, "o"), "p99": (0.99, "x"), "p99.9": (0.999, "^")}
_COLOURS = {"p50": "#4c78a8", "p99": "#f58518", "p99.9": "#e45756"}


def text_chart(sweep: Sweep, *, width: int = 72, height: int = 14) -> str:
    """Latency (logarithmic) over rate, one mark a quantile; empty when nothing was answered."""
    points = [
        (point.rate, point.latency.quantile(fraction), mark)
        for point in sweep.points
        if point.latency.total
        for fraction, mark in _LINES.values()
    ]
    if not points:
        return ""
    rates = [rate for rate, _, _ in points]
    logs = [math.log10(max(value, 1e-9)) for _, value, _ in points]
    low, high = min(logs), max(*logs, min(logs) + 0.1)
    right = max(rates)
    grid = [[" "] * width for _ in range(height)]
    for (rate, _, mark), log in zip(points, logs, strict=True):
        column = round((width - 1) * rate / right)
        row = round((height - 1) * (high - log) / (high - low))
        grid[row][column] = mark
    lines = []
    for row, cells in enumerate(grid):
        value = 10 ** (high - (high - low) * row / (height - 1))
        label = show_seconds(value) if row % 3 == 0 or row == height - 1 else ""
        lines.append(f"{label:>9} |{''.join(cells).rstrip()}")
    lines.append(" " * 9 + " +" + "-" * width)
    lines.append(" " * 11 + "0" + f"{right:.0f} a second".rjust(width - 1))
    lines.append(" " * 11 + "  ".join(f"{mark} {name}" for name, (_, mark) in _LINES.items()))
    return "\n".join(lines)


def draw(path: Path, sweeps: Mapping[str, Sweep], *, title: str) -> None:
    """Writes latency against load of each named sweep to a `.svg` or `.png` file.

    The first is drawn full, the others (the ceiling) dashed. Raises `ServeError` for another ending.
    """
    if path.suffix not in (".svg", ".png"):
        raise ServeError("the plot's file has the wrong ending", value=path.name, rule=".svg or .png")
    figures = require("matplotlib.figure", extra="train")
    figure = figures.Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot()
    for place, (name, sweep) in enumerate(sweeps.items()):
        for label, (fraction, mark) in _LINES.items():
            known = [point for point in sweep.points if point.latency.total]
            axes.plot(
                [point.rate for point in known],
                [1e3 * point.latency.quantile(fraction) for point in known],
                label=f"{name} {label}", marker=mark, color=_COLOURS[label],
                linestyle="--" if place else "-", alpha=0.5 if place else 1.0,
            )  # fmt: skip
        _shade(axes, sweep, name)
    axes.set(xlabel="requests a second (open loop)", ylabel="latency from the intended send time, ms",
             yscale="log", title=title)  # fmt: skip
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter("{x:g}")
    axes.grid(visible=True, which="both", alpha=0.2)
    axes.legend(fontsize="small", ncols=len(sweeps))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def _shade(axes: object, sweep: Sweep, name: str) -> None:
    """Marks the rates at which the generator itself was the limit."""
    limited: Sequence[float] = [point.rate for point in sweep.points if point.limited]
    for rate in limited:
        axes.axvline(rate, color="grey", linestyle=":", linewidth=1)  # type: ignore[attr-defined]  # untyped
    if limited:
        axes.plot([], [], color="grey", linestyle=":", label=f"{name}: the generator limits")  # type: ignore[attr-defined]  # untyped
