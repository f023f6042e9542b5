"""The report's plots as inline SVG that takes its colours from the page, light or dark."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from modelyard.core.require import require
from modelyard.data.columnprofile import CategoricalProfile, NumericProfile
from modelyard.measure.measurement import Measurement
from modelyard.monitor.detectors.fisher import category_counts
from modelyard.monitor.markup import Markup, text

_COLOURS = {
    "ink": "#10a1b1", "muted": "#10a1b2", "line": "#10a1b3", "ref": "#10a1b4", "win": "#10a1b5",
    "bad": "#10a1b6", "good": "#10a1b7",
}  # fmt: skip
"""Stand-ins that matplotlib writes and that become the page's variables."""

_BINS = 24
_MOST_BARS = 10


def numeric_plot(number: int, title: str, reference: NumericProfile, window: NumericProfile) -> Markup:
    """Two distributions of numbers: the reference as an area, the window as a line, both as shares."""
    edges = _edges(reference, window)
    if edges is None:
        return Markup("")
    before, after = (side.histogram(edges) / max(side.finite, 1) for side in (reference, window))

    def draw(axes: Any) -> None:
        axes.stairs(before, edges, fill=True, color=_COLOURS["ref"], alpha=0.5)
        axes.stairs(after, edges, color=_COLOURS["win"], linewidth=1.6)

    alt = (
        f"{title}: reference mean {reference.mean:.3g}, window mean {window.mean:.3g}; "
        f"shares over {edges[0]:.3g} to {edges[-1]:.3g}"
    )
    return _svg(number, alt, draw, size=(4.2, 1.75))


def category_plot(
    number: int, title: str, reference: CategoricalProfile, window: CategoricalProfile
) -> Markup:
    """Shares of the commonest categories side by side."""
    sides = category_counts(reference, window)
    if sides is None:
        return Markup("")
    names, before, after = sides
    before, after = before / before.sum(), after / after.sum()
    order = np.argsort(-(before + after), kind="stable")[:_MOST_BARS]
    order = order[(before + after)[order] > 0]
    labels = [_cut(names[place]) for place in order]

    def draw(axes: Any) -> None:
        places = np.arange(len(order))
        axes.bar(places - 0.2, before[order], 0.38, color=_COLOURS["ref"], alpha=0.6)
        axes.bar(places + 0.2, after[order], 0.38, color=_COLOURS["win"])
        axes.set_xticks(places, labels, rotation=0 if sum(map(len, labels)) < 46 else 30,
                        ha="center" if sum(map(len, labels)) < 46 else "right")  # fmt: skip

    told = ", ".join(f"{names[place]} {before[place]:.0%} to {after[place]:.0%}" for place in order[:4])
    return _svg(number, f"{title}: shares {told}", draw, size=(4.2, 1.75))


def latency_plot(number: int, latencies: Sequence[float], bound: float | None) -> Markup:
    """How long requests took, in milliseconds on a logarithmic axis, with the quantiles and the bound."""
    values = np.asarray(latencies, dtype=np.float64) * 1e3
    values = values[np.isfinite(values) & (values > 0)]
    if not len(values):
        return Markup("")
    half, late = np.quantile(values, [0.5, 0.99])
    low, high = values.min() * 0.9, max(values.max(), (bound or 0.0) * 1e3) * 1.1

    def draw(axes: Any) -> None:
        axes.hist(values, np.geomspace(low, high, 48), color=_COLOURS["win"], alpha=0.75)
        marks = [(half, "p50", "ink"), (late, "p99", "ink")]
        marks += [(bound * 1e3, "bound", "bad")] if bound else []
        for value, name, colour in marks:
            axes.axvline(
                value, color=_COLOURS[colour], linewidth=1.2, linestyle="--" if name == "bound" else "-"
            )
            limit = name == "bound"
            # The bound's words hang below the others', which may stand at the same place.
            axes.annotate(f"{name} {value:.3g}", (value, 1.0), xycoords=("data", "axes fraction"),
                          xytext=(-4 if limit else 4, -10 if limit else 3), textcoords="offset points",
                          ha="right" if limit else "left", fontsize=8, color=_COLOURS[colour])  # fmt: skip
        axes.set_xscale("log")
        ticks = _ticks(low, high)
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.minorticks_off()
        axes.set_xlabel("milliseconds")
        axes.set_ylabel("requests")

    limit = "" if bound is None else f", bound {bound * 1e3:.3g} ms"
    alt = f"Latency of {len(values):,} requests: median {half:.3g} ms, 99th percentile {late:.3g} ms{limit}"
    return _svg(number, alt, draw, size=(9.0, 2.3))


def interval_plot(number: int, title: str, items: Sequence[Measurement], bound: float | None) -> Markup:
    """Measured values with their intervals, one below the other, against a bound."""
    kept = [item for item in items if np.isfinite(item.value)]
    if not kept:
        return Markup("")

    def draw(axes: Any) -> None:
        places = np.arange(len(kept))[::-1]
        for place, item in zip(places, kept, strict=True):
            low, high = (item.value if edge is None else edge for edge in (item.low, item.high))
            axes.plot([low, high], [place, place], color=_COLOURS["ref"], linewidth=3, solid_capstyle="round")
        axes.plot([item.value for item in kept], places, "o", color=_COLOURS["win"], markersize=5)
        if bound is not None:
            axes.axvline(bound, color=_COLOURS["bad"], linewidth=1.2, linestyle="--")
        axes.set_yticks(places, [_cut(item.of or item.metric, 34) for item in kept])
        axes.set_ylim(-0.7, len(kept) - 0.3)
        axes.set_xlabel(_cut(kept[0].metric, 40))
        axes.grid(visible=True, axis="x", color=_COLOURS["line"], linewidth=0.7)

    told = ", ".join(f"{item.of or item.metric} {item.value:.3g}" for item in kept[:6])
    limit = "" if bound is None else f", bound {bound:g}"
    return _svg(number, f"{title}: {told}{limit}", draw, size=(9.0, 0.75 + 0.26 * len(kept)))


def _svg(number: int, alt: str, draw: Callable[[Any], None], *, size: tuple[float, float]) -> Markup:
    """Draws without pyplot (no global state) and takes out what a page must not hold."""
    matplotlib = require("matplotlib", extra="train")
    figures = require("matplotlib.figure", extra="train")
    settings = {
        "svg.fonttype": "none", "svg.hashsalt": f"plot-{number}", "font.size": 9, "text.parse_math": False,
        "text.color": _COLOURS["ink"], "axes.labelcolor": _COLOURS["muted"],
        "axes.edgecolor": _COLOURS["line"],
        "xtick.color": _COLOURS["muted"], "ytick.color": _COLOURS["muted"], "axes.spines.top": False,
        "axes.spines.right": False, "axes.spines.left": False, "ytick.left": False, "axes.linewidth": 0.8,
    }  # fmt: skip
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        # The browser draws the words, with its own fonts: that matplotlib's lacks a letter does not matter.
        warnings.filterwarnings("ignore", message="Glyph", category=UserWarning)
        figure = figures.Figure(figsize=size, layout="constrained")
        axes = figure.subplots()
        axes.grid(visible=True, axis="y", color=_COLOURS["line"], linewidth=0.7)
        axes.set_axisbelow(True)
        draw(axes)
        axes.patch.set_alpha(0.0)
        file = io.StringIO()
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    return _tidy(file.getvalue(), number, alt)


def _tidy(svg: str, number: int, alt: str) -> Markup:
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\sxmlns(:\w+)?="[^"]*"', "", svg).replace("xlink:href", "href")
    # Several plots share one page: their ids must differ.
    svg = re.sub(r'(\sid="|url\(#|href="#)', rf"\g<1>p{number}-", svg)
    svg = re.sub(r"font: ([0-9.]+px) [^;\"]*", r"font: \1 var(--font)", svg)
    for name, colour in _COLOURS.items():
        svg = svg.replace(colour, f"var(--{name})")
    head = f'<svg role="img" aria-label="{text(alt)}" preserveAspectRatio="xMidYMid meet"'
    for side in ("width", "height"):
        svg = re.sub(rf'(<svg[^>]*?)\s{side}="[^"]*"', r"\1", svg, count=1)
    return Markup(re.sub(r"\n\s*", "\n", svg.replace("<svg", head, 1)).strip())


def _edges(reference: NumericProfile, window: NumericProfile) -> npt.NDArray[np.float64] | None:
    """Edges that hold the middle 99 % of both sides, never finer than the sketch's buckets."""
    sides = [side for side in (reference, window) if side.finite]
    if not sides:
        return None
    low = min(side.sketch.quantile(0.005) for side in sides)
    high = max(side.sketch.quantile(0.995) for side in sides)
    values = np.unique(np.concatenate([side.sketch.values()[0] for side in sides]))
    values = values[(values >= low) & (values <= high)]
    if len(values) <= _BINS:
        middle = (values[1:] + values[:-1]) / 2
        reach = (
            max(float(np.min(np.diff(values))) / 2, 1e-9) if len(values) > 1 else max(abs(low) * 0.05, 0.5)
        )
        return np.concatenate([[values[0] - reach], middle, [values[-1] + reach]])
    return np.linspace(low, high, _BINS + 1)


def _ticks(low: float, high: float) -> list[float]:
    decades = np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)) + 1)
    steps = (1,) if high / low > 1000 else (1, 2, 5)
    return [
        float(step * 10**decade) for decade in decades for step in steps if low <= step * 10**decade <= high
    ]


def _cut(name: str, limit: int = 14) -> str:
    name = "".join(letter if letter.isprintable() else " " for letter in name)
    return name if len(name) <= limit else name[: limit - 1] + "…"
