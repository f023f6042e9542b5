"""What a check says when it was not told enough."""

from __future__ import annotations

from modelyard.measure.measurement import Verdict
from modelyard.score.context import CheckContext


def lacking(claim: str, context: CheckContext, *fields: str) -> Verdict | None:
    """A failed verdict that names the facts which the context lacks; `None` when it has them all."""
    absent = [name for name in fields if _empty(getattr(context, name))]
    if not absent:
        return None
    return Verdict(claim, False, f"not measured: no {', '.join(absent)} given", details={"lacking": absent})


def _empty(value: object) -> bool:
    return value is None or (hasattr(value, "__len__") and len(value) == 0)
