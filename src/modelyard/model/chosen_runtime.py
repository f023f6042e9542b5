"""The runtime that a measurement chose, with its options: what a release is measured on and served with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from types import MappingProxyType
from typing import Any, TypeAlias

from modelyard.core.errors import ModelError
from modelyard.core.names import did_you_mean, is_name
from modelyard.model.model import Model
from modelyard.model.runtime import DEFAULT_OPTIONS, LEVELS, RuntimeOptions, Session
from modelyard.model.runtimes import RUNTIMES

Settings: TypeAlias = Mapping[str, bool | int | str]
"""Some of the fields of `RuntimeOptions`: those that were chosen. The rest is whoever loads' business."""

HOME = "onnxruntime"
"""The runtime where nothing else was chosen, and the one that originals are compared on."""
_THREADS_MAX = 256


@dataclass(frozen=True, slots=True)
class ChosenRuntime:
    """A runtime by name with the settings chosen for it; a `Runtime` itself.

    Raises `ModelError` for a name that cannot be one, and for settings that there are not. Whether the
    runtime is known and installed only shows when something is loaded.

    >>> str(ChosenRuntime("onnxruntime", {"arena": True})), str(DEFAULT_RUNTIME)
    ('onnxruntime (arena true)', 'onnxruntime')
    """

    name: str = HOME
    settings: Settings = field(default_factory=lambda: MappingProxyType({}))

    def __post_init__(self) -> None:
        if not is_name(self.name):
            raise ModelError("the runtime's name is wrong", value=self.name, rule="such as onnxruntime")
        for key, value in self.settings.items():
            _check(key, value)

    def load(self, model: Model, options: RuntimeOptions = DEFAULT_OPTIONS) -> Session:
        """A session with `options`, but for the settings that were chosen.

        Raises `ModelError` when the runtime cannot take the graph, `MissingExtra` when it is not installed,
        `ModelyardError` when there is none of that name.
        """
        chosen: dict[str, Any] = dict(self.settings)
        return RUNTIMES.get(self.name).load(model, replace(options, **chosen))

    def __str__(self) -> str:
        told = ", ".join(f"{key} {str(value).lower()}" for key, value in sorted(self.settings.items()))
        return f"{self.name} ({told})" if told else self.name


DEFAULT_RUNTIME = ChosenRuntime()


def _check(key: str, value: object) -> None:
    known = [item.name for item in fields(RuntimeOptions)]
    if key not in known:
        raise ModelError("there is no such runtime option", value=key, fix=did_you_mean(key, known))
    if key == "optimize":
        right, rule = value in LEVELS, f"one of {', '.join(LEVELS)}"
    elif key == "threads":
        right = isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= _THREADS_MAX
        rule = f"a whole number from 1 to {_THREADS_MAX}"
    else:
        right, rule = isinstance(value, bool), "true or false"
    if not right:
        raise ModelError(f"the runtime option {key!r} is wrong", value=value, rule=rule)
