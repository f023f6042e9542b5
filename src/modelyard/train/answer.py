"""The module around the user's module: feature columns in, probabilities or real units out."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from modelyard.core.errors import TrainError
from modelyard.core.spec import Tensors


class Answer(torch.nn.Module):
    """What is trained, exported and served: one graph from the contract's columns to the answer.

    `forward(*columns)` takes the feature columns in the contract's order. The user's module is given the
    lone column as it is, several scalar columns side by side as `[N, columns]`, and anything else as one
    argument a column. Its output becomes `probabilities [N, K]` through a softmax, or `prediction [N, 1]`:
    the output times the training targets' standard deviation plus their mean. Both are buffers, so the
    scale is saved, exported and restored with the weights.
    """

    target_mean: torch.Tensor
    target_scale: torch.Tensor

    def __init__(self, module: torch.nn.Module, sample: Tensors, targets: npt.NDArray[Any], classes: int):
        super().__init__()
        self.module = module
        self.classes = classes
        self.side_by_side = len(sample) > 1 and all(
            array.ndim == 2 and array.shape[1] == 1 for array in sample.values()
        )
        mean, scale = (0.0, 1.0) if classes else (float(np.mean(targets)), float(np.std(targets)))
        self.register_buffer("target_mean", torch.tensor(mean, dtype=torch.float32))
        self.register_buffer("target_scale", torch.tensor(scale or 1.0, dtype=torch.float32))

    def arguments(self, columns: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        """The feature columns as the user's module takes them."""
        return (torch.cat(columns, dim=1),) if self.side_by_side else columns

    def finish(self, output: torch.Tensor) -> torch.Tensor:
        """The user's output as the answer: probabilities, or values in the target's unit."""
        if self.classes:
            return torch.softmax(output.float(), dim=-1)
        return output.float().reshape(-1, 1) * self.target_scale + self.target_mean

    def forward(self, *columns: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = self.module(*self.arguments(columns))
        return self.finish(output)

    def targets(self, targets: npt.NDArray[Any]) -> torch.Tensor:
        """Targets as the loss takes them: class indices `[N]`, or standardised values `[N, 1]`."""
        if self.classes:
            return torch.from_numpy(np.asarray(targets, dtype=np.int64))
        values = torch.from_numpy(np.asarray(targets, dtype=np.float32)).reshape(-1, 1)
        return (values - self.target_mean.cpu()) / self.target_scale.cpu()


def columns_of(tensors: Tensors) -> tuple[torch.Tensor, ...]:
    """The tensors in order; raises `TrainError` for text, which torch cannot hold."""
    text = [name for name, array in tensors.items() if array.dtype == object]
    if text:
        raise TrainError(
            "a torch module cannot take text columns",
            value=text,
            rule="numbers and tensors",
            fix="derive numbers from them in data.py, or build a scikit-learn pipeline with an encoder",
        )
    return tuple(torch.from_numpy(np.ascontiguousarray(array)) for array in tensors.values())


def predict(answer: Answer, columns: tuple[torch.Tensor, ...], *, batch: int = 512) -> npt.NDArray[Any]:
    """Answers of a module in evaluation mode, float32, in batches; the mode is put back."""
    training = answer.training
    answer.eval()
    device = answer.target_mean.device
    try:
        with torch.inference_mode():
            parts = [
                answer(*(column[start : start + batch].to(device) for column in columns)).cpu()
                for start in range(0, len(columns[0]), batch)
            ]
    finally:
        answer.train(training)
    return torch.cat(parts).numpy()
