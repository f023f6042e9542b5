"""A search as one self-contained page: the choice and why, the picture, and a row a plan."""

from __future__ import annotations

from collections.abc import Callable
from html import escape

from modelyard.compress.search.found import Found, counted
from modelyard.compress.search.picture import picture
from modelyard.compress.search.point import Point
from modelyard.core.unit import show_seconds, show_size

_STYLE = """
body{font:14px/1.45 system-ui,sans-serif;margin:2rem auto;max-width:80rem;padding:0 1rem}
body{color:#222;background:#fff}figure{overflow:auto;margin:1rem 0}figure svg{max-width:100%;height:auto}
table{border-collapse:collapse;margin:1rem 0}td,th{padding:.2rem .8rem .2rem 0;text-align:left}
td,th{border-bottom:1px solid #8884;vertical-align:top;font-variant-numeric:tabular-nums}
"""


def search_page(found: Found) -> str:
    """The whole page as HTML, without a script; every name is escaped. `MissingExtra` without matplotlib."""
    drawn = picture(found).decode()
    rows = [
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in plan_rows(found)
    ]
    return "\n".join(
        [
            "<!doctype html><html lang=en><meta charset=utf-8>",
            '<meta name=viewport content="width=device-width,initial-scale=1">',
            f"<title>{escape(found.name)}</title><style>{_STYLE}</style><h1>{escape(choice(found))}</h1>",
            f"<p>{escape(found.why)}.</p>",
            f"<p>{escape(found.tuned)}</p>" if found.tuned else "",
            f"<p>{escape(counted(found.points))} of {found.size}; {escape(found.stopped)}.</p>",
            f"<figure>{drawn[drawn.index('<svg') :]}</figure>",
            "<table><tr>" + "".join(f"<th>{escape(name)}</th>" for name in plan_head(found)) + "</tr>",
            *rows,
            "</table><p>Intervals are of 95 %. Speed-up is measured in pairs with the original; p50, p99 and "
            "rows/s are of the plan alone, at the moment that it was tried. A plan is on the front when no "
            f"other is better in {escape(', '.join(found.objectives))} at once.</p>",
        ]
    )


def choice(found: Found) -> str:
    """What is kept and on what it runs, in a few words."""
    if found.interrupted:
        return "nothing yet"
    name = "the original" if found.chosen is None else found.plan
    told = ", ".join(f"{key} {str(value).lower()}" for key, value in found.settings.items())
    return f"{name} on {found.runtime}" + (f" ({told})" if told else "")


def plan_head(found: Found) -> tuple[str, ...]:
    """The columns of `plan_rows`."""
    return ("plan", found.metric, "speed-up", "p50", "p99", "rows/s", "file", "memory", "state", "why")


def plan_rows(found: Found) -> list[tuple[str, ...]]:
    """The original, then the plans: the front first, by speed, those that ended early last."""
    ahead = {point.number for point in found.front}

    def order(point: Point) -> tuple[bool, bool, float]:
        fast = point.measured.get("speedup")
        return point.number not in ahead, point.state != "measured", -(fast.value if fast else 0.0)

    points = [found.baseline, *sorted(found.points, key=order)]
    return [_row(found, point, ahead) for point in points]


def _row(found: Found, point: Point, ahead: set[int]) -> tuple[str, ...]:
    known = point.measured

    def cell(name: str, show: Callable[[float], str]) -> str:
        item = known.get(name)
        return "" if item is None or item.value != item.value else show(item.value)

    chosen = found.chosen is not None and found.chosen.number == point.number
    marks = ["chosen"] if chosen else []
    marks += ["front"] if point.number in ahead else []
    marks += ["accepted"] if point.accepted and not chosen and point.number >= 0 else []
    marks += [f"ended at {point.stage}"] if point.state != "measured" else []
    return (
        point.name, cell("quality", lambda value: f"{value:.4g}"), _speed(point),
        cell("latency_p50", show_seconds), cell("latency_p99", show_seconds),
        cell("throughput", lambda value: f"{value:,.0f}"), cell("model_size", show_size),
        cell("peak_memory", show_size), ", ".join(marks), point.why if not point.accepted else "",
    )  # fmt: skip


def _speed(point: Point) -> str:
    item = point.measured.get("speedup")
    if item is None or item.low is None or item.high is None:
        return ""
    return f"{item.value:.2f}x [{item.low:.2f}, {item.high:.2f}]"
