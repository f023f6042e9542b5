"""Modelyard: a model ships on evidence.

The names here are what users write in their projects; everything else is reached through its room.
Importing this package loads nothing heavy: a name is imported when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from modelyard.core.errors import ModelyardError
    from modelyard.measure.measurement import Measurement, Verdict
    from modelyard.measure.requirement import Requirement
    from modelyard.train.training import Training

__version__ = "0.1.0"

_WHERE = {
    "Measurement": "modelyard.measure.measurement",
    "ModelyardError": "modelyard.core.errors",
    "Requirement": "modelyard.measure.requirement",
    "Training": "modelyard.train.training",
    "Verdict": "modelyard.measure.measurement",
}

__all__ = ["Measurement", "ModelyardError", "Requirement", "Training", "Verdict", "__version__"]


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name in _WHERE:
        return getattr(import_module(_WHERE[name]), name)
    raise AttributeError(f"modelyard has no {name!r}")
