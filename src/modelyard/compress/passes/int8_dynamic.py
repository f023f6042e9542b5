"""int8 weights, activations quantized as they come: for models that are mostly matrix products."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from modelyard.compress import graph_file as gf
from modelyard.compress.pass_protocol import Compressed
from modelyard.core.errors import CompressError
from modelyard.core.spec import Tensors

if TYPE_CHECKING:
    from modelyard.model.model import Model

_PRODUCTS = ("Gemm", "MatMul")
"""Dynamic convolutions ran 12 times slower than float ones, so they stay as they are."""


@dataclass(frozen=True, slots=True)
class DynamicInt8:
    """Dynamic quantization of MatMul and Gemm, weights signed and per channel. Needs no calibration."""

    name: str = "int8-dynamic"

    def apply(self, model: Model, calibration: Tensors) -> Compressed:
        """The quantized model; `CompressError` when it has no MatMul or Gemm with constant weights."""
        proto = gf.parse(model)
        gf.require_weights(proto, _PRODUCTS)
        from onnxruntime.quantization import QuantType, quantize_dynamic

        prepared = gf.prepared(proto)
        before = gf.operators(prepared)
        with gf.private_folder() as folder, gf.silence():
            target = folder / "quantized.onnx"
            for index, node in enumerate(prepared.graph.node):
                node.name = f"{node.op_type}_{index}"
            try:
                quantize_dynamic(
                    prepared, target, op_types_to_quantize=list(_PRODUCTS), per_channel=True,
                    weight_type=QuantType.QInt8, nodes_to_exclude=gf.odd_products(prepared),
                )  # fmt: skip
            except Exception as error:  # The quantizer raises whatever its walk over the graph meets.
                raise CompressError(
                    "onnxruntime cannot quantize the graph", value=str(error)[:200]
                ) from error
            proto = type(proto).FromString(target.read_bytes())
        gf.sort_nodes(proto.graph)
        found = gf.reread(proto.SerializeToString(deterministic=True), model)
        return Compressed(found, gf.changes(before, gf.operators(gf.parse(found))))
