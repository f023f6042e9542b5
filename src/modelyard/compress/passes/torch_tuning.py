"""The training loop of the passes: any module, any loss, masks that stay, the best epoch kept."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from torch.nn import functional

from modelyard.compress.plan_trainable import Trainable
from modelyard.core.errors import CompressError
from modelyard.core.spec import Tensors
from modelyard.model.model import Model
from modelyard.train.schedule import rate
from modelyard.train.seeding import derive, deterministic, seeded

Tensor: TypeAlias = torch.Tensor
Columns: TypeAlias = dict[str, Tensor]
Loss: TypeAlias = Callable[[Tensor], Tensor]
"""The numbers of a batch's rows, to a scalar."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long, how fast and in what portions: Adam with decoupled weight decay, a cosine down to nothing."""

    epochs: int
    rate: float
    batch: int
    seed: int
    threads: int = 1
    decay: float = 0.0


@dataclass(frozen=True, slots=True)
class Tuned:
    """The error on the validation part (share wrong, or mean squared over variance): at first and at last."""

    before: float
    after: float
    epoch: int
    """The epoch whose weights were kept; 0 when none was better than no training."""

    def note(self) -> str:
        return f"validation error {self.before:.4g} -> {self.after:.4g}, kept epoch {self.epoch}"


@dataclass(frozen=True, slots=True)
class Task:
    """The training and the validation part as tensors, and the loss of the task itself.

    Regression targets are standardised by the training part, so that a loss near 1 is the mean's.
    """

    train: Columns
    targets: Tensor
    validation: Columns
    truth: Tensor
    mean: float
    scale: float
    classes: int

    def hard(self, output: Tensor, targets: Tensor) -> Tensor:
        """Cross entropy of logits, or mean squared error of standardised values."""
        if self.classes:
            return functional.cross_entropy(output, targets)
        return functional.mse_loss((output.reshape(-1) - self.mean) / self.scale, targets)

    def error(self, output: Tensor) -> tuple[float, float]:
        """The error on the validation part, and its loss to tell equals apart."""
        loss = float(self.hard(output, self.truth))
        if self.classes:
            return float((output.argmax(dim=1) != self.truth).float().mean()), loss
        return loss, loss


def task_of(trainable: Trainable) -> Task:
    """The data set as torch tensors; raises `CompressError` for text or rows that are not finite."""
    data = trainable.dataset
    classes = len(data.labels) if data.task == "classification" else 0
    if classes:
        targets, truth = (
            torch.from_numpy(np.asarray(t, np.int64)) for t in (data.train_targets, data.validation_targets)
        )
        return Task(columns(data.train), targets, columns(data.validation), truth, 0.0, 1.0, classes)
    mean, scale = float(np.mean(data.train_targets)), float(np.std(data.train_targets)) or 1.0
    targets, truth = (
        torch.from_numpy(((np.asarray(t) - mean) / scale).astype(np.float32))
        for t in (data.train_targets, data.validation_targets)
    )
    return Task(columns(data.train), targets, columns(data.validation), truth, mean, scale, 0)


def columns(rows: Tensors) -> Columns:
    """Rows as tensors by name; `CompressError` for text."""
    text = [name for name, values in rows.items() if values.dtype == object]
    if text:
        raise CompressError("does not apply: a graph with text cannot be trained", value=text)
    return {name: torch.from_numpy(np.ascontiguousarray(values)) for name, values in rows.items()}


def taken(rows: Columns, places: Tensor) -> Columns:
    """Those rows of every column."""
    return {name: values[places] for name, values in rows.items()}


def tune(
    module: torch.nn.Module,
    forward: Callable[[Columns], Tensor],
    loss: Loss,
    task: Task,
    how: Schedule,
    *,
    rows: int | None = None,
    masks: Mapping[torch.nn.Parameter, Tensor] | None = None,
    keep_first: bool = True,
) -> Tuned:
    """Trains the module in place and leaves it with the weights of the epoch that validates best.

    `forward` gives what `task.hard` takes. `rows` is how many rows there are to draw from (the training part
    when `None`). Where a mask is false the weight is zero after every step. Without `keep_first` the state
    before the first epoch does not count. Raises `CompressError` when a loss is not finite.
    """
    weights = [item for item in module.parameters() if item.requires_grad]
    if not weights:
        raise CompressError("does not apply: nothing in the graph can learn")
    with deterministic(how.threads), seeded(how.seed, torch=True):
        optimizer = torch.optim.AdamW(weights, lr=how.rate, weight_decay=how.decay)
        _mask(masks)
        module.eval()
        first = _validated(forward, task)
        best = first if keep_first else (math.inf, math.inf)
        kept, epoch = _copy(module), 0
        total = len(task.targets) if rows is None else rows
        steps = how.epochs * max(1, -(-total // how.batch))
        step = 0
        for number in range(how.epochs):
            module.train()
            torch.manual_seed(derive(how.seed, number))
            for places in torch.split(torch.randperm(total), how.batch):
                if len(places) == 1 and total > 1:
                    continue
                for group in optimizer.param_groups:
                    group["lr"] = rate("cosine", step, steps, how.rate)
                step += 1
                value = loss(places)
                if not math.isfinite(value.item()):
                    raise CompressError("training diverged", value=value.item(), fix="take a smaller rate")
                optimizer.zero_grad()
                value.backward()  # type: ignore[no-untyped-call]
                torch.nn.utils.clip_grad_norm_(weights, 10.0)
                optimizer.step()
                _mask(masks)
            module.eval()
            now = _validated(forward, task)
            if now < best:
                best, kept, epoch = now, _copy(module), number + 1
        module.load_state_dict(kept)
    return Tuned(first[0], best[0] if epoch or keep_first else first[0], epoch)


def schedule(step: Any, trainable: Trainable) -> Schedule:
    """The schedule of a pass that has `epochs`, `rate` and `batch`."""
    return Schedule(step.epochs, step.rate, step.batch, trainable.seed, trainable.threads)


def answers(model: Model, rows: Tensors) -> Tensor:
    """A model's probabilities or predictions on the rows, by onnxruntime."""
    from modelyard.model.onnx_runtime import OnnxRuntime
    from modelyard.model.predict import predict

    session = OnnxRuntime().load(model)
    try:
        return torch.from_numpy(predict(session, rows))
    finally:
        session.close()


def _validated(forward: Callable[[Columns], Tensor], task: Task) -> tuple[float, float]:
    with torch.no_grad():
        parts = torch.split(torch.arange(len(task.truth)), 256)
        error = task.error(torch.cat([forward(taken(task.validation, places)) for places in parts]))
    return error if all(map(math.isfinite, error)) else (math.inf, math.inf)


def _copy(module: torch.nn.Module) -> dict[str, Any]:
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


def _mask(masks: Mapping[torch.nn.Parameter, Tensor] | None) -> None:
    with torch.no_grad():
        for weight, mask in (masks or {}).items():
            # A product would leave negative zeros, a second value for what is one.
            weight.masked_fill_(~mask, 0.0)
