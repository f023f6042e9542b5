"""Some held-out rows with the answers of training time, kept in the bundle so that a server can prove itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from modelyard.core.spec import Tensors


@dataclass(frozen=True, slots=True, eq=False)
class Answers:
    """Inputs and the main output that the model gave for them: `[N, K]` probabilities or `[N, 1]` predictions."""

    inputs: Tensors
    outputs: npt.NDArray[Any]

    def to_json(self) -> dict[str, Any]:
        raise NotImplementedError
