"""What `build` may return for torch, to say how the module is to be trained."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Training:
    """A torch module and how to fit it; a bare module is the same as `Training(module)`.

    The module answers logits `[N, K]` for classification and one value `[N, 1]` or `[N]` for regression,
    where the value is on the scale of the standardised target (see `train/answer.py`). `loss` is called
    with that output and the targets and gives a scalar; `None` is cross entropy, or mean squared error.
    `patience` is how many epochs without a better validation metric end the training early (`None`:
    never). The learning rate rises and falls as `schedule` says, a step a batch.

    >>> Training(module=None, learning_rate=3e-3, epochs=5).optimizer
    'adamw'
    """

    module: Any
    learning_rate: float = 1e-3
    epochs: int = 10
    batch_size: int = 64
    weight_decay: float = 0.0
    optimizer: Literal["adamw", "sgd"] = "adamw"
    loss: Callable[[Any, Any], Any] | None = None
    schedule: Literal["onecycle", "cosine", "constant"] = "onecycle"
    patience: int | None = None
    clip: float | None = None
    """The largest gradient norm; larger gradients are scaled down to it."""
    precision: str = "32-true"
    """As Lightning Fabric names it: `32-true`, `bf16-mixed`, `16-mixed`, ..."""
    accelerator: str = "auto"
    """As Lightning Fabric names it: `auto`, `cpu`, `cuda`, `mps`."""
    threads: int = 1
    """Threads of one training on a CPU. One gives the same weights on every machine of a kind, and does
    not collapse when another process takes a core."""
