"""The one door from a trained object to a `Model`: dispatch, then proof of parity on real rows."""

from __future__ import annotations

from dataclasses import dataclass

from modelyard.core.spec import Tensors
from modelyard.measure.measurement import Verdict
from modelyard.model.model import Model, Task


@dataclass(frozen=True, slots=True)
class Converted:
    """A model and the proof (claim `model.parity`) that it answers as the trained object does."""

    model: Model
    parity: Verdict


def convert(
    trained: object,
    sample: Tensors,
    *,
    task: Task,
    labels: tuple[str, ...] = (),
    tolerance: float | None = None,
) -> Converted:
    """Makes the ONNX graph of a scikit-learn or LightGBM estimator, or a torch module, and proves it."""
    raise NotImplementedError
