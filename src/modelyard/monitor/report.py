"""One self-contained page that says how a release is doing."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from modelyard.monitor.report_data import ReportData


def render_report(data: ReportData) -> str:
    """The report as one HTML document with inline style and plots, no script and no outside resource.

    Every text is escaped. Needs matplotlib for the plots (`MissingExtra` otherwise).
    """
    raise NotImplementedError
