"""The first numbers of a new project, from how many rows there are: bars, splits, margins, windows."""

from __future__ import annotations

from typing import Any, Literal

_MANY = 2000
"""Rows from which the ordinary shares leave a held-out part that decides."""
_SHARES = (0.6, 0.15, 0.25)
_MARGINS = (0.02, 0.03, 0.05, 0.1, 0.15, 0.2, 0.3)

Task = Literal["classification", "regression"]


def first_bar(task: Task, target: Any) -> tuple[str, str]:
    """The metric to optimise, and a requirement that any useful model clears, as TOML."""
    import numpy as np

    if task == "regression":
        return "rmse", 'metric = "r2"\nat_least = 0.0          # better than always answering the mean'
    values, counts = np.unique([str(item) for item in target if item is not None], return_counts=True)
    share = float(counts.max() / counts.sum()) if len(values) else 0.0
    # Of few held-out rows the commonest class may make up less: chance must not stop the first run.
    chance = 2 * (share * (1 - share) / max(held_out(int(counts.sum())), 1)) ** 0.5
    bar = max(0, int((share - chance) * 100) / 100)
    return "accuracy", f'metric = "accuracy"\nat_least = {bar:<12} # the commonest class alone reaches this'


def held_out(rows: int) -> int:
    """About how many rows the test part will have."""
    return int(rows * (0.15 if rows >= _MANY else _SHARES[2]) * 0.95)


def split_line(rows: int) -> str:
    """The `fractions` of a small table: more is held out, so that the gates have something to decide by.

    >>> split_line(400)
    'fractions = [0.6, 0.15, 0.25]'
    >>> split_line(10_000)
    ''
    """
    return "" if rows >= _MANY else f"fractions = {list(_SHARES)}"


def gate_section(task: Task, rows: int) -> str:
    """The margin that the held-out rows can prove at all, where the ordinary one is out of reach."""
    from modelyard.measure.compare import rows_to_prove

    if task == "regression":
        return ""
    margin = next((item for item in _MARGINS if 2 * rows_to_prove(item) <= held_out(rows)), _MARGINS[-1])
    if margin == _MARGINS[0]:
        return ""
    return (
        f"# About {held_out(rows)} held-out rows cannot prove less; narrow it when there are more.\n"
        f"[gate]\nmargin = {margin}\n"
    )


def monitor_section(rows: int) -> str:
    """A window that the held-out rows fill twice, so that the drills have a clean one and a planted one."""
    window = max(20, min(500, held_out(rows) // 2))
    return "" if window == 500 else f"[monitor]\nwindow = {window}\n"
