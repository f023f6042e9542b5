"""Depthwise-separable replacement: a convolution becomes a filter a channel and a mixing of channels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from modelyard.compress.lowrank_factors import separable
from modelyard.compress.pass_protocol import Compressed
from modelyard.compress.passes.fine_tune import FineTune
from modelyard.compress.passes.layers import (
    attribute,
    done,
    editable,
    fresh,
    put,
    replace_node,
    share,
    some_layers,
)  # fmt: skip
from modelyard.compress.plan_option import check_options, option, spelled
from modelyard.compress.plan_trainable import Trainable
from modelyard.core.errors import CompressError
from modelyard.core.spec import Tensors

if TYPE_CHECKING:
    from modelyard.model.model import Model


@dataclass(frozen=True, slots=True)
class Separable:
    """MobileNet's convolution (Howard et al. 2017, arXiv:1704.04861) in place of ordinary ones, fine-tuned.

    Started from the nearest separable kernel (`lowrank_factors.separable`). Changed are convolutions without
    groups, with a kernel above one and at least `inputs` input channels, where at most half of the weights
    are left; the training then makes good what the change cost.
    """

    inputs: int = option(8, "the fewest input channels", low=2, high=4096)
    epochs: int = option(5, "passes over the training rows", low=1, high=1000)
    rate: float = option(2e-3, "the largest learning rate", low=1e-7, high=1.0)
    batch: int = option(64, "rows a step", low=1, high=65536)

    def __post_init__(self) -> None:
        check_options(self)

    @property
    def name(self) -> str:
        return spelled("separable", self)

    def train(self, model: Model, calibration: Tensors, trainable: Trainable) -> Compressed:
        """The separable, trained model; `CompressError` without a convolution that is worth it."""
        proto = editable(model)
        found, left = some_layers(proto)
        notes: list[str] = []
        for layer in found:
            if layer.kind != "Conv" or attribute(layer.node, "group", 1) != 1:
                continue
            wide = layer.values.shape[1]
            depthwise, pointwise = separable(layer.values)
            size = depthwise.size + pointwise.size
            if wide < self.inputs or 2 * size > layer.values.size:
                continue
            _replace(proto, layer, depthwise, pointwise)
            notes.append(f"Conv {layer.name!r}: separable, {share(size, layer.values.size)} left")
        if not notes:
            raise CompressError("does not apply: no convolution is worth making separable", rule=self.name)
        changed = done(proto, model, ())
        step = FineTune(epochs=self.epochs, rate=self.rate, batch=self.batch, zeros=False)
        tuned = step.train(changed.model, calibration, trainable)
        return Compressed(tuned.model, (*notes, *tuned.notes, *left))


def _replace(proto: Any, layer: Any, depthwise: Any, pointwise: Any) -> None:
    import onnx

    first, second = fresh(proto, f"{layer.weight}_depthwise"), fresh(proto, f"{layer.weight}_pointwise")
    put(proto, first, depthwise[:, None])
    put(proto, second, pointwise.reshape(*pointwise.shape, *[1] * (depthwise.ndim - 1)))
    between = fresh(proto, f"{layer.name}_apart")
    filters = onnx.helper.make_node("Conv", [layer.node.input[0], first], [between])
    filters.attribute.extend(item for item in layer.node.attribute if item.name != "group")
    filters.attribute.append(onnx.helper.make_attribute("group", len(depthwise)))
    mix = onnx.helper.make_node("Conv", [between, second, *layer.node.input[2:]], list(layer.node.output))
    old = next(node for node in proto.graph.node if list(node.output) == list(layer.node.output))
    replace_node(proto, old, [filters, mix])
