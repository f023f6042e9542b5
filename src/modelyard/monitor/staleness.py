"""How old a release is."""

from __future__ import annotations

from modelyard.core.unit import show_seconds
from modelyard.measure.measurement import Measurement
from modelyard.monitor.suspicion import Suspicion


def staleness(released: float, now: float, limit: float, action: str) -> Suspicion:
    """The release's age in seconds against the limit: a fact.

    >>> staleness(0.0, 86400.0 * 40, 86400.0 * 30, "modelyard run").finding
    'the release is 40.0 d old, limit 30.0 d'
    """
    age = max(now - released, 0.0)
    return Suspicion(
        claim="monitor.staleness",
        kind="staleness",
        subject="release",
        p_value=None,
        relevant=age > limit,
        finding=f"the release is {show_seconds(age)} old, limit {show_seconds(limit)}",
        action=action,
        effect=age / limit,
        measurements=(Measurement("age", age, unit="s", n=1),),
        bound=limit,
    )
