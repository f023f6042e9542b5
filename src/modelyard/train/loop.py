"""The training loop for torch: Lightning Fabric for device and precision, the rest in plain sight."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric

from modelyard.core.digest import Digest
from modelyard.core.errors import TrainError
from modelyard.core.progress import Progress
from modelyard.measure.metric import Metric
from modelyard.train.answer import Answer, columns_of
from modelyard.train.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from modelyard.train.dataset import Dataset
from modelyard.train.schedule import rate
from modelyard.train.seeding import derive, deterministic, seeded
from modelyard.train.training import Training

History = tuple[Mapping[str, float], ...]
Weights = dict[str, torch.Tensor]


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a training is done in: how it is judged, seeded, kept, watched, and whose code it runs."""

    metric: Metric
    seed: int
    guard: Callable[[str], AbstractContextManager[None]]
    """Runs the user's code: its errors become `TrainError`s that name file and line."""
    identity: Digest
    folder: Path | None
    """Where checkpoints go; `None` keeps none."""
    progress: Progress
    on_epoch: Callable[[int, float], None] | None = None
    """Called after each epoch with its number (from 0) and the validation metric; may raise to end."""


@dataclass(frozen=True, slots=True)
class _Part:
    columns: tuple[torch.Tensor, ...]
    targets: torch.Tensor
    truth: Any


def train(answer: Answer, training: Training, dataset: Dataset, around: Surroundings) -> History:
    """Trains the module in place, leaves it on the CPU with the best epoch's weights, and says how it went.

    The best epoch has the best validation metric, and among equals the smallest validation loss. With a
    folder, each epoch ends in a checkpoint, and a checkpoint of the same identity is continued from, with
    the same weights in the end, bit for bit. Raises `TrainError` for a loss that is not finite and for
    whatever the user's module raises.
    """
    with deterministic(training.threads):
        return _train(answer, training, dataset, around)


def _train(answer: Answer, training: Training, dataset: Dataset, around: Surroundings) -> History:
    with warnings.catch_warnings():
        # Fabric advises about devices and plug-ins that the user did not ask for.
        warnings.simplefilter("ignore")
        fabric = Fabric(accelerator=training.accelerator, devices=1, precision=training.precision)
        with around.guard("the module cannot be set up:"):
            answer.to(fabric.device)
            parts = _parts(answer, dataset, fabric.device)
            _check_output(answer, parts[0], dataset)
            module, optimizer = fabric.setup(answer.module, _optimizer(answer, training))
    history, best = _resume(answer, optimizer, around)
    runner = _Epochs(fabric, module, optimizer, answer, training, parts, around)
    while len(history) < training.epochs and not _stopped(history, training, around.metric):
        epoch = len(history)
        with around.guard(f"training raised in epoch {epoch + 1}:"):
            history = (*history, runner.run(epoch))
        if best_epoch(history, around.metric) == epoch:
            best = _weights(answer)
        if around.folder is not None:
            state = optimizer.state_dict()
            save_checkpoint(
                around.folder, Checkpoint(around.identity, epoch + 1, _weights(answer), best, state, history)
            )
        value = history[-1][around.metric.name]
        around.progress(
            (epoch + 1) / training.epochs,
            f"epoch {epoch + 1}/{training.epochs} · {around.metric.name} {value:.4g}",
        )
        if around.on_epoch is not None:
            around.on_epoch(epoch, value)
    answer.cpu()
    answer.load_state_dict(best)
    answer.eval()
    return history


def best_epoch(history: History, metric: Metric) -> int:
    """The epoch (from 0) whose weights are kept: best metric first, smallest validation loss second."""
    sign = 1.0 if metric.better == "higher" else -1.0

    def key(epoch: int) -> tuple[float, float]:
        value = sign * history[epoch][metric.name]
        return (-math.inf if math.isnan(value) else value, -history[epoch]["validation_loss"])

    return max(range(len(history)), key=key)


@dataclass(frozen=True, slots=True)
class _Epochs:
    fabric: Any
    module: Any
    optimizer: Any
    answer: Answer
    training: Training
    parts: tuple[_Part, _Part]
    around: Surroundings

    def run(self, epoch: int) -> dict[str, float]:
        """One epoch and its line of the history; a function of the weights, the seed and the number."""
        start = time.perf_counter()
        with seeded(derive(self.around.seed, epoch), torch=True):
            loss, skipped = self._train(epoch)
        validation_loss, value = self._validate()
        steps = len(self._batches(torch.arange(len(self.parts[0].targets))))
        return {
            "epoch": epoch + 1,
            "train_loss": loss,
            "validation_loss": validation_loss,
            self.around.metric.name: value,
            "learning_rate": rate(
                self.training.schedule,
                epoch * steps,
                self.training.epochs * steps,
                self.training.learning_rate,
            ),
            "skipped_batches": skipped,
            "seconds": time.perf_counter() - start,
        }

    def _train(self, epoch: int) -> tuple[float, int]:
        part, device = self.parts[0], self.fabric.device
        batches = self._batches(torch.randperm(len(part.targets)))
        total, skipped = 0.0, 0
        self.answer.train()
        for index, rows in enumerate(batches):
            step = epoch * len(batches) + index
            for group in self.optimizer.param_groups:
                group["lr"] = rate(
                    self.training.schedule,
                    step,
                    self.training.epochs * len(batches),
                    self.training.learning_rate,
                )
            chosen = rows.to(device)
            columns = tuple(column[chosen] for column in part.columns)
            output = self.module(*self.answer.arguments(columns))
            loss = loss_of(self.answer, self.training, output, part.targets[chosen])
            value = loss.item()
            if not math.isfinite(value):
                raise self._not_finite(value, epoch, index, skipped, columns)
            total += value * len(rows)
            self.optimizer.zero_grad()
            self.fabric.backward(loss)
            if self._finite_gradient():
                self.optimizer.step()
            else:
                skipped += 1
        if skipped == len(batches):
            raise self._not_finite(math.nan, epoch, len(batches) - 1, skipped, part.columns)
        return total / len(part.targets), skipped

    def _finite_gradient(self) -> bool:
        """Clips as asked; says whether the step can be taken (half precision's scaler decides itself)."""
        gradients = [item.grad for item in self.answer.parameters() if item.grad is not None]
        if self.training.precision.startswith("16"):
            return True
        norm = torch.nn.utils.get_total_norm(gradients)
        if not math.isfinite(norm.item()):
            return False
        if self.training.clip is not None:
            torch.nn.utils.clip_grads_with_norm_(self.answer.parameters(), self.training.clip, norm)
        return True

    def _validate(self) -> tuple[float, float]:
        part = self.parts[1]
        self.answer.eval()
        with torch.inference_mode():
            output = torch.cat(
                [
                    self.module(*self.answer.arguments(tuple(column[rows] for column in part.columns)))
                    for rows in torch.split(torch.arange(len(part.targets), device=self.fabric.device), 512)
                ]
            )
            loss = loss_of(self.answer, self.training, output, part.targets).item()
            answers = self.answer.finish(output).cpu().numpy()
        return loss, self.around.metric.compute(part.truth, answers)

    def _batches(self, order: torch.Tensor) -> list[torch.Tensor]:
        batches = list(torch.split(order, self.training.batch_size))
        # Batch normalisation cannot learn from one row: a lone last row joins the batch before it.
        if len(batches) > 1 and len(batches[-1]) == 1:
            batches[-2:] = [torch.cat(batches[-2:])]
        return batches

    def _not_finite(
        self, loss: float, epoch: int, batch: int, skipped: int, columns: tuple[torch.Tensor, ...]
    ) -> TrainError:
        bad = sum(int((~torch.isfinite(column)).sum()) for column in columns if column.is_floating_point())
        weights = sum(int((~torch.isfinite(item)).sum()) for item in self.answer.parameters())
        return TrainError(
            f"the loss is {loss:g} in epoch {epoch + 1}, batch {batch + 1}"
            if skipped == 0
            else f"no gradient is finite in epoch {epoch + 1}",
            value={"nan_inputs": bad, "nan_weights": weights, "skipped_batches": skipped},
            rule="every loss is a finite number",
            fix="fill missing values in data.py" if bad else "lower the learning rate or set Training.clip",
        )


def loss_of(answer: Answer, training: Training, output: Any, targets: torch.Tensor) -> torch.Tensor:
    """The training's loss: the user's own, cross entropy of logits, or mean squared error."""
    if training.loss is not None:
        loss: torch.Tensor = training.loss(output, targets)
        return loss
    if answer.classes:
        return torch.nn.functional.cross_entropy(output.float(), targets)
    return torch.nn.functional.mse_loss(output.float().reshape(-1, 1), targets)


def _parts(answer: Answer, dataset: Dataset, device: torch.device) -> tuple[_Part, _Part]:
    def part(tensors: Any, truth: Any) -> _Part:
        columns = tuple(column.to(device) for column in columns_of(tensors))
        return _Part(columns, answer.targets(truth).to(device), truth)

    return part(dataset.train, dataset.train_targets), part(dataset.validation, dataset.validation_targets)


def _check_output(answer: Answer, part: _Part, dataset: Dataset) -> None:
    """One pass over two rows: lazy layers take their shape, and a wrong output is named before training."""
    columns = tuple(column[:2] for column in part.columns)
    rows = len(columns[0])
    answer.eval()
    with torch.no_grad():
        output = answer.module(*answer.arguments(columns))
    shape = tuple(output.shape) if isinstance(output, torch.Tensor) else type(output).__name__
    wanted = [(rows, len(dataset.labels))] if answer.classes else [(rows, 1), (rows,)]
    if shape not in wanted:
        raise TrainError(
            "the module answers the wrong shape",
            value=shape,
            rule=f"logits {[rows, len(dataset.labels)]} for {rows} rows and {len(dataset.labels)} labels"
            if answer.classes
            else f"[{rows}, 1] or [{rows}] for {rows} rows",
            fix="correct the module's last layer",
        )


def _optimizer(answer: Answer, training: Training) -> torch.optim.Optimizer:
    weights = [item for item in answer.parameters() if item.requires_grad]
    if not weights:
        raise TrainError("the module has nothing to learn", rule="at least one parameter with requires_grad")
    if training.optimizer == "sgd":
        return torch.optim.SGD(
            weights,
            training.learning_rate,
            momentum=0.9,
            nesterov=True,
            weight_decay=training.weight_decay,
        )
    # One kernel for all weights: the step of a small network takes a sixth of the time.
    return torch.optim.AdamW(weights, training.learning_rate, weight_decay=training.weight_decay, fused=True)


def _resume(answer: Answer, optimizer: Any, around: Surroundings) -> tuple[History, Weights]:
    found = None if around.folder is None else load_checkpoint(around.folder, around.identity)
    if found is None:
        return (), _weights(answer)
    answer.load_state_dict(found.weights)
    optimizer.load_state_dict(_laid_out(found.optimizer, optimizer))
    return found.history, dict(found.best)


def _laid_out(state: Mapping[str, Any], optimizer: Any) -> dict[str, Any]:
    """The optimizer's state in the memory layout of its weights: fused kernels walk both side by side."""
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]

    def like(index: int, value: Any) -> Any:
        if isinstance(value, torch.Tensor) and value.shape == weights[index].shape:
            return torch.empty_like(weights[index], dtype=value.dtype).copy_(value)
        return value

    slots = {
        index: {key: like(index, value) for key, value in kept.items()}
        for index, kept in state["state"].items()
    }
    return {**state, "state": slots}


def _stopped(history: History, training: Training, metric: Metric) -> bool:
    if training.patience is None or not history:
        return False
    return len(history) - 1 - best_epoch(history, metric) >= training.patience


def _weights(answer: Answer) -> Weights:
    return {name: tensor.detach().cpu().clone() for name, tensor in answer.state_dict().items()}


def bare(training: Training) -> dict[str, Any]:
    """The training's numbers without the module and the loss, whose code has a digest of its own."""
    plain = replace(training, module=None, loss=None)
    return {name: getattr(plain, name) for name in Training.__slots__ if name not in ("module", "loss")}
