"""What runs a model: one protocol, so that a faster engine can take onnxruntime's place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from modelyard.core.spec import Signature, Tensors
from modelyard.model.model import Model

LEVELS = ("all", "extended", "basic", "none")
"""How hard an engine may rewrite a graph, the hardest first."""


@dataclass(frozen=True, slots=True)
class RuntimeOptions:
    """How a session runs: `threads` inside one operator, and how hard the engine rewrites the graph first.

    `optimize` is "all", "extended" (no change of layout), "basic" (no layout or fusion that ties the graph to
    this machine) or "none" (the graph as it is written, for looking inside). `arena` keeps freed memory for
    the next request, and the process does not shrink; `pattern` lays out a run's tensors in one block;
    `prepack` keeps weights in the order that kernels read, beside the graph's own; `spin` lets idle threads
    burn their core. The defaults are what serving uses where nothing was tuned, so they are what is measured.
    """

    threads: int = 1
    optimize: str = "all"
    arena: bool = False
    pattern: bool = True
    prepack: bool = True
    spin: bool = False

    def __post_init__(self) -> None:
        if self.threads < 1:
            raise ValueError(f"threads must be at least 1, got {self.threads}")
        if self.optimize not in LEVELS:
            raise ValueError(f"optimize must be one of {', '.join(LEVELS)}, got {self.optimize!r}")


DEFAULT_OPTIONS = RuntimeOptions()


class Session(Protocol):
    """A model that is loaded and ready to answer, from any thread."""

    @property
    def signature(self) -> Signature:
        """The signature of the model that was loaded."""
        ...

    def run(self, inputs: Tensors, outputs: Sequence[str] | None = None) -> Tensors:
        """The named outputs (all, in the signature's order, when `None`) for a batch of one or more items.

        Called for every request. Raises `ModelError` for a missing or unknown name, a wrong datatype or
        shape, inputs of different batch sizes, and when the engine fails; never changes its inputs.
        """
        ...

    def close(self) -> None:
        """Gives the session's memory back; called once, and `run` is not called afterwards."""
        ...


class Runtime(Protocol):
    """An engine that turns a model's bytes into a session. It is never handed a path."""

    @property
    def name(self) -> str:
        """The name under which the engine is chosen and reported."""
        ...

    def load(self, model: Model, options: RuntimeOptions = ...) -> Session:
        """A session for the model; raises `ModelError` when the engine cannot take the graph."""
        ...
