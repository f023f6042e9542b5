"""Fake quantisation with straight-through gradients, as the QDQ form of the graph computes it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch

from modelyard.core.errors import CompressError

Tensor = torch.Tensor


class _Through(torch.autograd.Function):
    """round and clamp forward; backward the identity within the range, nothing outside."""

    @staticmethod
    def forward(context: Any, x: Tensor, scale: Tensor, zero: Tensor, low: int, high: int) -> Tensor:
        steps = torch.round(x / scale) + zero
        context.save_for_backward((steps >= low) & (steps <= high))
        return (steps.clamp(low, high) - zero) * scale

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (inside,) = context.saved_tensors
        return gradients[0] * inside, None, None, None, None


def fake_weight(weight: Tensor, axis: int, *, per_channel: bool = True) -> Tensor:
    """A weight as symmetric int8 holds it: scale max|w| / 127 an output channel, no zero point.

    The straight-through estimator (Bengio et al. 2013, arXiv:1308.3432) as in Jacob et al. 2018,
    arXiv:1712.05877; scales follow the weights at every step and pass no gradient.
    """
    with torch.no_grad():
        if per_channel:
            largest = weight.abs().amax(
                dim=[place for place in range(weight.ndim) if place != axis], keepdim=True
            )
        else:
            largest = weight.abs().max()
        scale = (largest / 127.0).clamp_min(1e-12)
    return _Through.apply(weight, scale, torch.zeros(()), -127, 127)  # type: ignore[no-any-return, no-untyped-call]


def fake_activation(x: Tensor, low: float, high: float, *, signed: bool) -> Tensor:
    """An activation as asymmetric int8 holds it: zero is exact, 256 steps over [low, high]."""
    low, high = min(low, 0.0), max(high, 0.0)
    least, most = (-128, 127) if signed else (0, 255)
    scale = max((high - low) / 255.0, 1e-12)
    zero = float(min(max(round(least - low / scale), least), most))
    return _Through.apply(x, torch.tensor(scale), torch.tensor(zero), least, most)  # type: ignore[no-any-return, no-untyped-call]


@dataclass(slots=True)
class Observers:
    """The hook of a `GraphModule`: every layer reads its input and its weights as int8 would hold them.

    Ranges of inputs are moving averages of the extremes of training batches, kept still in evaluation.
    """

    axes: dict[str, int]
    """The axis of output channels of each layer's weights, by the layer's output."""
    signed: bool
    module: torch.nn.Module
    momentum: float = 0.05
    ranges: dict[str, tuple[float, float]] = field(default_factory=dict)

    def __call__(self, kind: str, layer: str, x: Tensor) -> Tensor:
        if kind == "weight":
            return fake_weight(x, self.axes[layer])
        low, high = float(x.detach().min()), float(x.detach().max())
        if not math.isfinite(low + high):
            raise CompressError(
                "an activation is not finite on the training rows", value=layer,
                fix="leave out rows with missing numbers, or replace them in the graph",
            )  # fmt: skip
        known = self.ranges.get(layer)
        if known is None:
            self.ranges[layer] = low, high
        elif self.module.training:
            keep = 1 - self.momentum
            self.ranges[layer] = keep * known[0] + self.momentum * low, keep * known[1] + self.momentum * high
        return fake_activation(x, *self.ranges[layer], signed=self.signed)
