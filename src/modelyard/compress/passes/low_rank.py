"""Low-rank factorisation: one matrix product becomes two thin ones, one convolution three cheap ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from modelyard.compress.lowrank_factors import svd_factors, tucker2
from modelyard.compress.pass_protocol import Compressed
from modelyard.compress.passes.layers import (
    Array,
    Layer,
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
from modelyard.core.errors import CompressError
from modelyard.core.spec import Tensors

if TYPE_CHECKING:
    from modelyard.model.model import Model


@dataclass(frozen=True, slots=True)
class LowRank:
    """Factorises each layer to the least rank that keeps `energy` of its squared weights.

    Gemm and MatMul by SVD; convolutions without groups by Tucker-2 into a pointwise, a small spatial and a
    pointwise one; pointwise convolutions by SVD. A layer is changed only where that leaves at most `gain` of
    its weights, and thus of its multiplications. Sources: `lowrank_factors.py`.
    """

    energy: float = option(0.95, "the share of squared weights that is kept", low=0.05, high=0.9999)
    gain: float = option(0.8, "a layer is changed when at most this share of it is left", low=0.05, high=1.0)
    layers: str = option("all", "which layers", choices=("all", "matrices", "convolutions"))

    def __post_init__(self) -> None:
        check_options(self)

    @property
    def name(self) -> str:
        return spelled("low-rank", self)

    def apply(self, model: Model, calibration: Tensors) -> Compressed:
        """The factorised model; `CompressError` when no layer is worth it. Needs no calibration."""
        proto = editable(model)
        found, left = some_layers(proto)
        notes: list[str] = []
        changed = 0
        for layer in found:
            if self.layers != "all" and (layer.kind == "Conv") != (self.layers == "convolutions"):
                continue
            factors = self._factors(layer)
            size = sum(factor.size for factor in factors)
            if not factors or size > self.gain * layer.values.size:
                notes.append(_stays(layer, size))
                continue
            replace_node(proto, _same(proto, layer), _nodes(proto, layer, factors))
            changed += 1
            notes.append(
                f"{layer.kind} {layer.name!r}: rank {_ranks(factors)}, {share(size, layer.values.size)} left"
            )
        if not changed:
            raise CompressError(
                f"does not apply: no layer is {self.name} with at most {self.gain:g} of it left",
                value="; ".join(notes[:4]) or None, fix="lower the energy",
            )  # fmt: skip
        return done(proto, model, (f"{changed} of {len(found)} layers factorised", *notes, *left))

    def _factors(self, layer: Layer) -> tuple[Array, ...]:
        if layer.kind != "Conv":
            return svd_factors(layer.matrix(), self.energy)
        if attribute(layer.node, "group", 1) != 1:
            return ()
        if all(size == 1 for size in layer.values.shape[2:]):
            # A pointwise convolution is a matrix product at every place.
            first, second = svd_factors(layer.matrix(), self.energy)
            tail = (1,) * (layer.values.ndim - 2)
            return first.T.reshape(*first.T.shape, *tail), second.T.reshape(*second.T.shape, *tail)
        return tucker2(layer.values, self.energy)


def _stays(layer: Layer, size: int) -> str:
    if not size:
        return f"{layer.kind} {layer.name!r}: stays, it has groups"
    return f"{layer.kind} {layer.name!r}: stays, {share(size, layer.values.size)} would be left"


def _ranks(factors: tuple[Array, ...]) -> str:
    if len(factors) == 2:
        return str(factors[0].shape[0 if factors[0].ndim > 2 else 1])
    return f"{factors[1].shape[0]} x {factors[1].shape[1]}"


def _same(proto: Any, layer: Layer) -> Any:
    """The layer's node in the graph as it is now: earlier edits made copies."""
    return next(node for node in proto.graph.node if list(node.output) == list(layer.node.output))


def _nodes(proto: Any, layer: Layer, factors: tuple[Array, ...]) -> list[Any]:
    if layer.kind != "Conv":
        return _products(proto, layer, factors)
    if len(factors) == 2:
        return _convolutions(proto, layer, factors, spatial=0)
    outer, core, inner = factors
    tail = (1,) * (core.ndim - 2)
    return _convolutions(
        proto,
        layer,
        (inner.reshape(*inner.shape, *tail), core, outer.reshape(*outer.shape, *tail)),
        spatial=1,
    )


def _products(proto: Any, layer: Layer, factors: tuple[Array, ...]) -> list[Any]:
    import onnx

    first, second = factors
    down = fresh(proto, f"{layer.weight}_down")
    put(proto, down, first)
    up = fresh(proto, f"{layer.weight}_up")
    put(proto, up, np.ascontiguousarray(second.T) if layer.transposed else second)
    between = fresh(proto, f"{layer.name}_thin")
    last = type(layer.node)()
    last.CopyFrom(layer.node)
    last.input[0], last.input[1] = between, up
    # A Gemm's alpha scales the whole product, so it stays with the last factor alone.
    return [onnx.helper.make_node("MatMul", [layer.node.input[0], down], [between]), last]


def _convolutions(proto: Any, layer: Layer, kernels: tuple[Array, ...], *, spatial: int) -> list[Any]:
    import onnx

    made = []
    now = layer.node.input[0]
    for index, kernel in enumerate(kernels):
        name = fresh(proto, f"{layer.weight}_{index}")
        put(proto, name, kernel)
        end = index == len(kernels) - 1
        # Padding comes after a pointwise product without bias, which keeps zeros: the result is the same.
        inputs = [now, name, *(layer.node.input[2:] if end else [])]
        result = layer.node.output[0] if end else fresh(proto, f"{layer.name}_thin{index}")
        if index == spatial:
            node = onnx.helper.make_node("Conv", inputs, [result])
            node.attribute.extend(layer.node.attribute)
        else:
            node = onnx.helper.make_node("Conv", inputs, [result], kernel_shape=list(kernel.shape[2:]))
        made.append(node)
        now = result
    return made
