"""Names that people type: their rule, the nearest known one, and the plugins behind them."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from importlib.metadata import entry_points
from typing import Generic, TypeVar

from modelyard.core.errors import ModelyardError

_NAME = re.compile(r"[a-z0-9]([a-z0-9_-]{0,62}[a-z0-9])?\Z")
NAME_RULE = "1 to 64 of a-z, 0-9, '-' and '_', starting and ending with a letter or digit"

T = TypeVar("T")


def is_name(text: str) -> bool:
    """Whether a text may name a project, an endpoint or a release line; see `NAME_RULE`."""
    return _NAME.match(text) is not None


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A hint for an unknown name: the nearest known one, or the list of all.

    >>> did_you_mean("acuracy", ["accuracy", "f1"])
    "did you mean 'accuracy'?"
    >>> did_you_mean("zzz", ["b", "a"])
    'known: a, b'
    """
    options = sorted(known)
    close = difflib.get_close_matches(name, options, n=1, cutoff=0.6)
    if close:
        return f"did you mean {close[0]!r}?"
    return "known: " + (", ".join(options) or "none")


class Plugins(Generic[T]):
    """The implementations of one extension point, by name: built-ins and entry points through one door.

    `group` is the entry-point group (for example `modelyard.passes`). A name taken twice is an error,
    and an unknown name answers with the nearest known one. Entry points are loaded when first asked for.
    """

    def __init__(self, group: str, built_in: Mapping[str, T]) -> None:
        self._group = group
        self._built_in = dict(built_in)
        self._outside = {point.name: point for point in entry_points(group=group)}
        for name in sorted(self._outside.keys() & self._built_in.keys()):
            raise ModelyardError(
                f"the plugin name {name!r} is taken twice in {group}",
                rule="each name once",
                fix="uninstall one of the packages that bring it",
            )

    def names(self) -> list[str]:
        """All known names, sorted."""
        return sorted(self._built_in.keys() | self._outside.keys())

    def get(self, name: str) -> T:
        """The implementation of that name; raises `ModelyardError` with "did you mean" otherwise."""
        if name in self._built_in:
            return self._built_in[name]
        if name in self._outside:
            loaded: T = self._outside[name].load()
            return loaded
        raise ModelyardError(f"{self._group} knows no {name!r}", fix=did_you_mean(name, self.names()))
