"""What every node of a graph computes, for finding where two executions part."""

from __future__ import annotations

from modelyard.core.spec import Tensors
from modelyard.model.model import Model


def intermediate(model: Model, tensors: Tensors) -> Tensors:
    """Every tensor that the graph computes for these rows, by the name it has in the graph."""
    raise NotImplementedError
