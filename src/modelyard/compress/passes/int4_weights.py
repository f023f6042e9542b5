"""Weights of matrix products in 4 bits, block by block, for models that wait for memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from modelyard.compress import graph_file as gf
from modelyard.compress.pass_protocol import Compressed
from modelyard.compress.passes.layers import (
    Layer,
    attribute,
    constant_of,
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

_BLOCKS = ("16", "32", "64", "128", "256")


@dataclass(frozen=True, slots=True)
class Int4Weights:
    """4-bit weights for MatMul and Gemm, a scale for each `block` of inputs (onnxruntime's MatMulNBits).

    Round to nearest, as `onnxruntime.quantization.matmul_nbits_quantizer` does it; a Gemm becomes a MatMul
    and an Add first. Symmetric blocks have no zero point. Layers with fewer inputs than a block stay float.
    `arithmetic="int8"` lets the runtime quantize activations of a row as it comes, which is faster; each
    row for itself, so rows of one batch do not disturb each other.
    """

    block: str = option("32", "weights that share a scale", choices=_BLOCKS)
    symmetric: bool = option(True, "no zero points")
    arithmetic: str = option("float", "what products are computed in", choices=("float", "int8"))

    def __post_init__(self) -> None:
        check_options(self)

    @property
    def name(self) -> str:
        return spelled("int4-weights", self)

    def apply(self, model: Model, calibration: Tensors) -> Compressed:
        """The model with packed weights; `CompressError` without a product that is wide enough."""
        gf.require_weights(gf.parse(model), ("Gemm", "MatMul"))
        proto = editable(model)
        found, left = some_layers(proto)
        chosen = [
            layer for layer in found if layer.kind != "Conv" and layer.matrix().shape[0] >= int(self.block)
        ]
        if not chosen:
            raise CompressError(
                f"does not apply: no MatMul or Gemm has {self.block} inputs or more",
                fix="take a smaller block",
            )
        wanted = [_as_product(proto, layer) for layer in chosen]
        for index, name in enumerate(wanted):
            node = next(node for node in proto.graph.node if node.output[0] == name)
            node.name = f"int4_{index}"
        with gf.silence():
            # The module configures the root logger when it is imported.
            from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

            chosen_names = {f"int4_{index}" for index in range(len(wanted))}
            others = [node.name for node in proto.graph.node if node.name not in chosen_names]
            quantizer = MatMulNBitsQuantizer(
                proto, block_size=int(self.block), is_symmetric=self.symmetric,
                accuracy_level=4 if self.arithmetic == "int8" else 0, nodes_to_exclude=others,
            )  # fmt: skip
            quantizer.process()
        result = done(quantizer.model.model, model, ())
        packed = gf.operators(gf.parse(result.model))["MatMulNBits"]
        if not packed:
            raise CompressError("does not apply: the quantizer packed no product")
        weights = sum(layer.values.size for layer in chosen)
        every = sum(layer.values.size for layer in found)
        notes = (
            f"{packed} products with 4-bit weights, a scale for {self.block} of them",
            f"{share(weights, every)} of the weights; {share(result.model.size, model.size)} of the bytes",
            *(f"stays float: {layer.kind} {layer.name!r}" for layer in found if layer not in chosen),
            *left,
        )
        return Compressed(result.model, notes)


def _as_product(proto: Any, layer: Layer) -> str:
    """Makes a Gemm a MatMul and an Add; the name of the product's output."""
    import onnx

    if layer.kind == "MatMul":
        return layer.name
    alpha, beta = (float(attribute(layer.node, key, 1.0)) for key in ("alpha", "beta"))
    put(proto, layer.weight, (alpha * layer.matrix()).astype(np.float32))
    node = next(node for node in proto.graph.node if node.output[0] == layer.name)
    if len(node.input) < 3 or not node.input[2]:
        replace_node(proto, node, [onnx.helper.make_node("MatMul", list(node.input[:2]), list(node.output))])
        return layer.name
    bias = node.input[2]
    made = []
    if layer.bias:
        bias = fresh(proto, f"{layer.bias}_scaled")
        put(proto, bias, (beta * constant_of(proto, layer.bias)).astype(np.float32))
    elif beta != 1.0:
        factor, bias = fresh(proto, "beta"), fresh(proto, f"{bias}_scaled")
        put(proto, factor, np.float32(beta) * np.ones(1, np.float32))
        made.append(onnx.helper.make_node("Mul", [node.input[2], factor], [bias]))
    product = fresh(proto, f"{layer.name}_product")
    made.append(onnx.helper.make_node("MatMul", list(node.input[:2]), [product]))
    made.append(onnx.helper.make_node("Add", [product, bias], list(node.output)))
    replace_node(proto, node, made)
    return product
