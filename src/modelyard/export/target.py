"""A place where a model can run: how to build for it, and how to run what was built."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from modelyard.core.digest import Digest
from modelyard.core.spec import Tensors
from modelyard.measure.measurement import Verdict
from modelyard.model.model import Model


@dataclass(frozen=True, slots=True)
class Artifact:
    """What a target built: the folder, its files by digest, and the proof that it answers as the model."""

    target: str
    folder: Path
    files: dict[str, Digest]
    parity: Verdict


class Target(Protocol):
    """A place where a model can run."""

    @property
    def name(self) -> str:
        """The name under which the target is chosen and reported."""
        ...

    def build(self, model: Model, folder: Path) -> Artifact:
        """Writes everything that the place needs into `folder`, runs it there once and proves parity.

        Raises `ModelError` when the model cannot run there; the folder is then not left half-written.
        """
        ...

    def run(self, artifact: Artifact, tensors: Tensors) -> Tensors:
        """The answers of what was built, computed by the built thing itself and not by us."""
        ...
