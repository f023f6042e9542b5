"""How a move of numbers is put into words."""

from __future__ import annotations

from modelyard.data.columnprofile import NumericProfile


def moved(reference: NumericProfile, window: NumericProfile, *, relevant: bool) -> str:
    """The mean before and after; the middle 90 % as well where the mean hardly tells a move that matters."""
    before, after = number(reference.mean), number(window.mean)
    text = f"mean moved from {before} to {after}" if before != after else f"mean stays at {before}"
    if not relevant or abs(window.mean - reference.mean) >= 0.5 * reference.std > 0:
        return text
    spans = [(number(side.quantile(0.05)), number(side.quantile(0.95))) for side in (reference, window)]
    return f"{text}, middle 90 % from [{', '.join(spans[0])}] to [{', '.join(spans[1])}]"


def number(value: float) -> str:
    """Three digits or so.

    >>> number(0.1299), number(1234567.0), number(12.0)
    ('0.13', '1.23e+06', '12')
    """
    return f"{value:.3g}"
