"""The plots of drift: what fired first, then by how far it moved."""

from __future__ import annotations

from collections.abc import Iterator

from modelyard.data.columnprofile import CategoricalProfile, NumericProfile, TensorProfile
from modelyard.data.profile import ColumnProfile
from modelyard.measure.measurement import Verdict
from modelyard.monitor.markup import Markup, pill, tag
from modelyard.monitor.plots import category_plot, numeric_plot
from modelyard.monitor.report_data import ReportData

MOST = 24
"""Plots on a page; the columns that moved least are left out and counted."""

_STATISTICS = ("mean", "std")


def drift_figures(data: ReportData) -> list[Markup]:
    """A figure for each column that both profiles have."""
    if data.reference is None or data.window is None:
        return []
    verdicts = _by_column(data)
    pairs = list(_pairs(data))
    pairs.sort(key=lambda pair: -_weight(verdicts.get(pair[0])))
    figures = [
        _figure(number, title, before, after, verdicts.get(title))
        for number, (title, before, after) in enumerate(pairs[:MOST])
    ]
    if len(pairs) > MOST:
        figures.append(
            tag("p", f"{len(pairs) - MOST} more columns moved less and are not drawn.", class_="empty")
        )
    return figures


def _pairs(data: ReportData) -> Iterator[tuple[str, ColumnProfile, ColumnProfile]]:
    if data.reference is None or data.window is None:
        return
    for name, after in data.window.columns.items():
        before = data.reference.columns.get(name)
        if isinstance(before, TensorProfile) and isinstance(after, TensorProfile):
            for statistic in _STATISTICS:
                if statistic in before.statistics and statistic in after.statistics:
                    yield f"{name}.{statistic}", before.statistics[statistic], after.statistics[statistic]
        elif before is not None and before.kind == after.kind:
            yield name, before, after


def _by_column(data: ReportData) -> dict[str, Verdict]:
    """The last window's drift verdict of each column, the one that moved most where several look at it."""
    found: dict[str, Verdict] = {}
    for verdict in data.windows[-1].verdicts if data.windows else ():
        if verdict.claim.startswith("monitor.drift["):
            name = verdict.claim.removeprefix("monitor.drift[").rpartition("]")[0]
            if name not in found or _weight(verdict) > _weight(found[name]):
                found[name] = verdict
    return found


def _weight(verdict: Verdict | None) -> float:
    if verdict is None:
        return 0.0
    return float(verdict.details.get("effect", 0.0)) + (0.0 if verdict.passed else 10.0)


def _figure(
    number: int, title: str, before: ColumnProfile, after: ColumnProfile, verdict: Verdict | None
) -> Markup:
    plot = Markup("")
    if isinstance(before, NumericProfile) and isinstance(after, NumericProfile):
        plot = numeric_plot(number, title, before, after)
    elif isinstance(before, CategoricalProfile) and isinstance(after, CategoricalProfile):
        plot = category_plot(number, title, before, after)
    fired = verdict is not None and not verdict.passed
    state = (
        pill("not judged", "plain")
        if verdict is None
        else pill("drift", "bad")
        if fired
        else pill("quiet", "good")
    )
    note = "" if verdict is None else verdict.why
    return tag(
        "figure", tag("figcaption", tag("span", title), state), tag("p", note, class_="note"),
        plot or tag("p", "no value to draw", class_="empty"), class_="fired" if fired else None,
    )  # fmt: skip
