"""The plans that a search tries when nobody says otherwise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from modelyard.compress.catalogue import PASSES
from modelyard.compress.search.space import HOME, Space, space_of

if TYPE_CHECKING:
    from modelyard.model.model import Model

_FIRST = ("graph", "int8-static", "int8-dynamic")


def default_space(
    model: Model, passes: Sequence[str] | None = None, runtimes: Sequence[str] = (HOME,)
) -> Space:
    """The space of the passes given, or of every known pass that trains nothing, on these engines."""
    del model
    names = [*_FIRST, *(name for name in PASSES.names() if name not in _FIRST)] if passes is None else passes
    return space_of(names, runtimes)
