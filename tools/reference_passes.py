"""The table of passes and their options in docs/reference/compression.md, made from the code."""

from __future__ import annotations

import inspect
import re

from modelyard.compress.plan_option import Option, Value, show
from modelyard.compress.plan_steps import KINDS, Kind

BEGIN, END = "<!-- passes: made by `make docs` -->", "<!-- end of passes -->"


def with_passes(page: str) -> str:
    """The page with what stands between the marks made anew."""
    before, _, rest = page.partition(BEGIN)
    after = rest.partition(END)[2]
    return f"{before}{BEGIN}\n\n{_passes()}\n{END}{after}"


def _passes() -> str:
    lines = []
    seen: dict[object, str] = {}
    for name, kind in KINDS.items():
        first = seen.setdefault(kind.make, name)
        if first != name:
            continue
        others = [f"`{other}`" for other, item in KINDS.items() if item.make is kind.make and other != name]
        lines += [f"### `{name}`", ""]
        if others:
            lines += [f"Also {', '.join(others)}.", ""]
        lines += [_about(kind), ""]
        if kind.trains:
            lines += ["Needs rows with targets.", ""]
        options = kind.options()
        if options:
            lines += ["| option | default | meaning |", "| --- | --- | --- |"]
            lines += [_row(option, *facts) for option, facts in options.items()] + [""]
    return "\n".join(lines)


def _about(kind: Kind) -> str:
    text = (inspect.getdoc(kind.make) or "").partition("\n\n")[0]
    return " ".join(text.split()).replace("<", "&lt;")


def _row(name: str, facts: Option, default: Value) -> str:
    bounds = ""
    if facts.choices:
        bounds = f" ({', '.join(f'`{choice}`' for choice in facts.choices)})"
    elif facts.low is not None and facts.high is not None and not isinstance(default, bool):
        bounds = f" ({facts.low:g} to {facts.high:g})"
    alias = f", also `{facts.alias}`" if facts.alias else ""
    text = re.sub(r"\|", r"\\|", facts.text)
    return f"| `{name}`{alias} | `{show(default)}` | {text}{bounds} |"
