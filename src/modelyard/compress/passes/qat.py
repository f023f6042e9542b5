"""Quantization-aware training: weights learn under int8's rounding, then become int8 as in int8-static."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from modelyard.compress.pass_protocol import Compressed
from modelyard.compress.passes.int8_static import StaticInt8
from modelyard.compress.passes.layers import done, editable, some_layers
from modelyard.compress.plan_option import check_options, option, spelled
from modelyard.compress.plan_trainable import Trainable
from modelyard.core.spec import Tensors

if TYPE_CHECKING:
    from modelyard.model.model import Model


@dataclass(frozen=True, slots=True)
class QuantizationAware:
    """Trains with fake quantisation of every layer's input and weights (Jacob et al. 2018), then quantizes.

    Batch norms are folded first, as the runtime would. The result has the QDQ form of `int8-static`, with the
    scales of the trained weights and ranges measured on the calibration rows: it fuses to the same kernels.
    """

    activations: str = option("s8", "signed or unsigned", choices=("s8", "u8"))
    epochs: int = option(3, "passes over the training rows", low=1, high=1000)
    rate: float = option(3e-4, "the largest learning rate", low=1e-7, high=1.0)
    batch: int = option(64, "rows a step", low=1, high=65536)

    def __post_init__(self) -> None:
        check_options(self)

    @property
    def name(self) -> str:
        return spelled("qat", self)

    def train(self, model: Model, calibration: Tensors, trainable: Trainable) -> Compressed:
        """The quantized model; zeros of a pruned graph stay zero."""
        import torch

        from modelyard.compress.passes.torch_graph import GraphModule
        from modelyard.compress.passes.torch_tuning import columns, schedule, taken, task_of, tune
        from modelyard.compress.prune_keep import sparse_masks
        from modelyard.compress.qat_fake import Observers

        proto = editable(model)
        found, left = some_layers(proto)
        module, task = GraphModule(proto), task_of(trainable)
        axes = {layer.name: 0 if layer.kind == "Conv" or layer.transposed else 1 for layer in found}
        wanted = {layer.weight for layer in found}
        observers = Observers(axes, self.activations == "s8", module)
        masks = sparse_masks(weight for name, weight in module.layer_weights().items() if name in wanted)

        def hook(kind: str, layer: str, x: torch.Tensor) -> torch.Tensor:
            return observers(kind, layer, x) if layer in axes else x

        module.hook = hook
        with torch.no_grad():
            module(columns({name: values[:256] for name, values in trainable.dataset.train.items()}))
        told = tune(
            module, module, lambda rows: task.hard(module(taken(task.train, rows)), task.targets[rows]),
            task, schedule(self, trainable), masks=masks,
        )  # fmt: skip
        tuned = done(module.written(), model, ())
        quantized = StaticInt8(self.activations).apply(tuned.model, calibration)
        note = f"trained {len(axes)} layers under fake quantisation; {told.note()}"
        return Compressed(quantized.model, (note, *quantized.notes, *left))
