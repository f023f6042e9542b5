"""Settings to choose from: knobs with their values, and how a cost model sees them."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from modelyard.core.digest import digest_json, short

Value: TypeAlias = bool | int | float | str
Setting: TypeAlias = Mapping[str, Value]
Floats: TypeAlias = npt.NDArray[np.float64]


def always(setting: Setting) -> bool:
    """Every combination is allowed."""
    return True


@dataclass(frozen=True, slots=True)
class TuningSpace:
    """Knobs by name with their values, the default's first; `allowed` leaves combinations out.

    >>> space = TuningSpace({"threads": (1, 2), "arena": (True, False)})
    >>> len(list(space.every())), space.default
    (4, {'threads': 1, 'arena': True})
    """

    knobs: Mapping[str, tuple[Value, ...]]
    allowed: Callable[[Setting], bool] = field(default=always, compare=False)

    def __post_init__(self) -> None:
        if not self.knobs or any(not values for values in self.knobs.values()):
            raise ValueError("a space has knobs, and each knob has values")

    @property
    def default(self) -> dict[str, Value]:
        """What is used when nothing is tuned: each knob's first value."""
        return {name: values[0] for name, values in self.knobs.items()}

    @property
    def key(self) -> str:
        """The same for spaces with the same knobs and values."""
        return short(digest_json({name: list(values) for name, values in self.knobs.items()}))

    def every(self) -> Iterator[dict[str, Value]]:
        """All allowed settings, the default first."""
        for values in itertools.product(*self.knobs.values()):
            setting = dict(zip(self.knobs, values, strict=True))
            if self.allowed(setting):
                yield setting

    def holds(self, setting: Setting) -> bool:
        """Whether this is a setting of the space."""
        return (
            set(setting) == set(self.knobs)
            and all(setting[name] in values for name, values in self.knobs.items())
            and self.allowed(setting)
        )

    def features(self, setting: Setting) -> Floats:
        """What a cost model sees: numbers by their logarithm as well, every value as a flag of its own."""
        found: list[float] = []
        for name, values in self.knobs.items():
            chosen = setting[name]
            if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
                found.append(math.log2(1 + abs(float(chosen))))
            found.extend(float(chosen == value) for value in values)
        return np.array(found)


def setting_key(setting: Setting) -> str:
    """The same text for equal settings."""
    return json.dumps(dict(sorted(setting.items())))
