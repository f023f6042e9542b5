"""What a compression pass is: a model in, a model out, and a word about what was done."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from modelyard.core.spec import Tensors

if TYPE_CHECKING:
    from modelyard.model.model import Model


@dataclass(frozen=True, slots=True)
class Compressed:
    """A pass's result: the new model, read through the strict reader, and notes for people."""

    model: Model
    notes: tuple[str, ...] = ()


class Pass(Protocol):
    """A step that makes a model smaller or faster.

    `apply` is called with the original and a few hundred real rows of its inputs (float rows as served).
    It must not change the model given, touch any path of the user's, or print. It raises `CompressError`
    when it does not apply or fails; it decides nothing: the gate does.
    """

    @property
    def name(self) -> str: ...

    def apply(self, model: Model, calibration: Tensors) -> Compressed:
        """A new model with the same signature, task and labels."""
        ...
