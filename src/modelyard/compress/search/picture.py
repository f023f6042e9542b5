"""The search as a picture: size and latency against quality, with intervals, the front and the choice."""

from __future__ import annotations

import io
import textwrap
import warnings
from typing import Any

from modelyard.compress.search.found import Found, counted
from modelyard.compress.search.point import Point
from modelyard.core.require import require

_KINDS = (
    ("accepted", "o", "#2f7f4f"),
    ("refused", "x", "#9f4f2f"),
)
_LABELS = 8


def picture(found: Found) -> bytes:
    """The picture as SVG; the same search gives the same bytes. Raises `MissingExtra` without matplotlib."""
    require("matplotlib", extra="train")
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context({"svg.hashsalt": found.name, "svg.fonttype": "none", "font.size": 9}):
        figure = Figure(figsize=(11, 5.2), layout="constrained")
        left, right = figure.subplots(1, 2, sharey=True)
        shown = [point for point in found.points if point.state == "measured"]
        _panel(left, found, shown, "size")
        _panel(right, found, shown, "latency")
        left.set_ylabel(found.metric, parse_math=False)
        right.legend(loc="best", frameon=False)
        told = textwrap.fill(f"{found.why}. {counted(found.points)}; {found.stopped}.", 150)
        figure.suptitle(told, fontsize=9, x=0.01, ha="left", parse_math=False)
        data = io.BytesIO()
        with warnings.catch_warnings():
            # A panel whose points lie on one another has no room that could be shared out.
            warnings.simplefilter("ignore", UserWarning)
            figure.savefig(data, format="svg", metadata={"Date": None, "Creator": None})
    return data.getvalue()


def _panel(axes: Any, found: Found, shown: list[Point], kind: str) -> None:
    for label, mark, colour in _KINDS:
        points = [point for point in shown if point.accepted == (label == "accepted")]
        if points:
            _marks(axes, found, points, kind, {"fmt": mark, "color": colour, "label": label, "ms": 5})
    _marks(axes, found, [found.baseline], kind, {"fmt": "s", "color": "#333", "label": "original", "ms": 6})
    ahead = sorted(found.front, key=lambda point: _at(found, point, kind)[0])
    axes.plot(
        [_at(found, point, kind)[0] for point in ahead],
        [point.measured["quality"].value for point in ahead],
        color="#888", linewidth=0.9, zorder=0, label="front",
    )  # fmt: skip
    for point in ahead[:_LABELS]:
        axes.annotate(
            point.name, (_at(found, point, kind)[0], point.measured["quality"].value), fontsize=7,
            xytext=(4, 4), textcoords="offset points", parse_math=False,
        )  # fmt: skip
    if found.chosen is not None:
        x, _, _ = _at(found, found.chosen, kind)
        axes.plot(
            [x], [found.chosen.measured["quality"].value], marker="*", markersize=15, color="#d9a400",
            linestyle="none", zorder=3, label="chosen",
        )  # fmt: skip
    axes.set_xlabel("file, kB" if kind == "size" else "latency of one row, µs (of the original's in pairs)")
    axes.grid(alpha=0.25)


def _marks(axes: Any, found: Found, points: list[Point], kind: str, style: dict[str, Any]) -> None:
    xs, ys, x_err, y_err = [], [], ([], []), ([], [])  # type: ignore[var-annotated]
    for point in points:
        x, low, high = _at(found, point, kind)
        quality = point.measured["quality"]
        xs.append(x)
        ys.append(quality.value)
        x_err[0].append(max(0.0, x - low))
        x_err[1].append(max(0.0, high - x))
        y_err[0].append(max(0.0, quality.value - (quality.value if quality.low is None else quality.low)))
        y_err[1].append(max(0.0, (quality.value if quality.high is None else quality.high) - quality.value))
    axes.errorbar(
        xs, ys, xerr=x_err, yerr=y_err, linestyle="none", elinewidth=0.6, capsize=0, alpha=0.85, **style
    )


def _at(found: Found, point: Point, kind: str) -> tuple[float, float, float]:
    """Where a point stands on the x axis, with its interval."""
    if kind == "size":
        size = point.measured["model_size"].value / 1000
        return size, size, size
    # The paired ratio times the original's latency: comparable though the machine was not equally busy.
    one, ratio = found.baseline.measured["latency_p50"].value * 1e6, point.measured["speedup"]
    low, high = ratio.low or ratio.value, ratio.high or ratio.value
    return one / ratio.value, one / high, one / low
