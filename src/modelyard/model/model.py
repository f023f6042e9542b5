"""The noun between training and serving: an ONNX graph that has passed the reader."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from modelyard.core.digest import Digest, digest_bytes
from modelyard.core.spec import Signature

Task: TypeAlias = Literal["classification", "regression"]

MAIN_OUTPUT: dict[str, str] = {"classification": "probabilities", "regression": "prediction"}
"""The output that answers, by task."""


@dataclass(frozen=True, slots=True)
class Model:
    """An ONNX graph as bytes, what goes in and out of it, and what its answers mean.

    `labels` names the columns of `probabilities` in order and is empty for regression. `producer` says in
    words what made the graph. Bytes from outside become a `Model` only through `reader.read_model`; a
    signed bundle may build one directly from what it holds.
    """

    onnx: bytes = field(repr=False)
    signature: Signature
    task: Task
    labels: tuple[str, ...] = ()
    producer: str = ""

    @property
    def digest(self) -> Digest:
        """The digest of the graph's bytes."""
        return digest_bytes(self.onnx)

    @property
    def size(self) -> int:
        """The graph's size in bytes."""
        return len(self.onnx)

    @property
    def output(self) -> str:
        """The name of the output that answers: `probabilities` or `prediction`."""
        return MAIN_OUTPUT[self.task]
