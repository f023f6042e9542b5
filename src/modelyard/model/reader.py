"""The only way in for a graph from outside: parsed from bytes, audited against bounds, never from a path."""

from __future__ import annotations

from typing import TYPE_CHECKING

from modelyard.model.limits import DEFAULT_LIMITS, Limits
from modelyard.model.model import Model, Task

__all__ = ["Limits", "read_model"]

if TYPE_CHECKING:
    from modelyard.store.objects import ObjectStore


def read_model(
    onnx: bytes,
    *,
    task: Task,
    labels: tuple[str, ...] = (),
    limits: Limits = DEFAULT_LIMITS,
    blobs: ObjectStore | None = None,
) -> Model:
    """A model from ONNX bytes; raises `ModelError` for whatever is not provably harmless."""
    raise NotImplementedError
