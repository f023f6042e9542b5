"""int8 weights and activations, with ranges measured on real rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from modelyard.compress import graph_file as gf
from modelyard.compress.pass_protocol import Compressed
from modelyard.compress.passes.int8_ranges import Range, ranges
from modelyard.compress.passes.int8_sensitivity import leave_in_float
from modelyard.compress.plan_option import check_options, option, spelled
from modelyard.core.errors import CompressError
from modelyard.core.spec import Tensors

if TYPE_CHECKING:
    from modelyard.model.model import Model

_FEWEST = 16
_QDQ, _A_SCALE_EACH = 10, 13
QUANTIZED = (
    *gf.WEIGHTED, "Add", "AveragePool", "Clip", "Concat", "Flatten", "GlobalAveragePool", "LeakyRelu",
    "MaxPool", "Mul", "Pad", "Relu", "Reshape", "Squeeze", "Transpose", "Unsqueeze",
)  # fmt: skip
"""Weighted operators and what commonly stands between them; never a softmax, whose answers would be steps."""


@dataclass(frozen=True, slots=True)
class StaticInt8:
    """Static quantization to QDQ form (Jacob et al. 2018, arXiv:1712.05877), ranges from calibration rows.

    `activations` chooses signed or unsigned eight bits: which one is faster depends on the processor.
    `calibration` says how ranges are made: the extremes, or cut by entropy or percentile where a few large
    values would cost all others their precision. With `floats` above 0 that share of the weighted layers may
    stay float: those whose quantization alone moves the answers most, as few as are needed
    (`int8_sensitivity.py`). With `layers` at "products" convolutions stay float: narrow ones lose more time
    to rounding and to another layout than eight bits win them.
    """

    activations: str = option("s8", "signed or unsigned", choices=("s8", "u8"))
    calibration: str = option("minmax", "how ranges are made", choices=("minmax", "entropy", "percentile"))
    percentile: float = option(99.99, "the share of values within the range, in percent", low=90, high=100)
    per_channel: bool = option(True, "a scale for each output channel of the weights")
    floats: float = option(0.0, "the share of weighted layers that may stay float", low=0, high=0.9)
    layers: str = option("all", "every layer, or Gemm and MatMul only", choices=("all", "products"))

    def __post_init__(self) -> None:
        check_options(self)

    @property
    def name(self) -> str:
        stem = "int8-static" if self.activations == "s8" else "int8-static-u8"
        method = "" if self.calibration == "minmax" else f":{self.calibration}"
        return spelled(stem + method, self, said=("activations", "calibration"))

    def apply(self, model: Model, calibration: Tensors) -> Compressed:
        """The quantized model; `CompressError` without weights to quantize or rows to calibrate with."""
        proto = gf.parse(model)
        gf.require_weights(proto)
        _require_float(proto)
        rows, left_out = gf.usable_rows(model, calibration, _FEWEST)
        with gf.silence():
            prepared = _with_shapes(gf.prepared(proto))
            found = ranges(prepared, QUANTIZED, rows, self.calibration, self.percentile)
            floats: tuple[str, ...] = ()
            said: tuple[str, ...] = ()
            if self.floats:
                choice = leave_in_float(
                    model,
                    prepared,
                    rows,
                    lambda only, but: self.quantized(prepared, found, only, but),
                    self.floats,
                )
                floats, said = choice.floats, choice.notes
            data = self.quantized(prepared, found, self._only(prepared), floats)
        if self.per_channel and not self._a_scale_each(proto):
            said = (*said, f"one scale a tensor: opset {gf.opset(proto)} has none a channel")
        return Compressed(gf.reread(data, model), (*_notes(data, rows, left_out), *said))

    def _only(self, prepared: Any) -> tuple[str, ...] | None:
        if self.layers == "all":
            return None
        found = tuple(node.name for node in prepared.graph.node if node.op_type in ("Gemm", "MatMul"))
        if not found:
            raise CompressError("does not apply: the graph has no Gemm and no MatMul")
        return found

    def _a_scale_each(self, proto: Any) -> bool:
        return self.per_channel and gf.opset(proto) >= _A_SCALE_EACH

    def quantized(
        self, prepared: Any, found: dict[str, Range], only: tuple[str, ...] | None, but: tuple[str, ...]
    ) -> bytes:
        """The graph in QDQ form as bytes: all nodes, or only those named, and never those in `but`."""
        import numpy as np
        import onnx
        from onnxruntime.quantization import QuantType
        from onnxruntime.quantization.calibrate import CalibrationMethod, TensorsData
        from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

        bounds = {name: (np.float32(low), np.float32(high)) for name, (low, high) in found.items()}
        quantizer = QDQQuantizer(
            onnx.ModelProto.FromString(prepared.SerializeToString()),
            self._a_scale_each(prepared),
            False,
            QuantType.QInt8,
            QuantType.QInt8 if self.activations == "s8" else QuantType.QUInt8,
            TensorsData(CalibrationMethod.MinMax, bounds),
            list(only) if only is not None else [],
            [*but, *gf.odd_products(prepared)],
            list(QUANTIZED),
            {},
        )
        try:
            quantizer.quantize_model()
        except Exception as error:  # The quantizer raises whatever its walk over the graph meets.
            raise CompressError("onnxruntime cannot quantize the graph", value=str(error)[:200]) from error
        gf.sort_nodes(quantizer.model.model.graph)
        data: bytes = quantizer.model.model.SerializeToString(deterministic=True)
        return data


def _require_float(proto: Any) -> None:
    kinds = gf.operators(proto)
    if kinds["DequantizeLinear"] or kinds["QuantizeLinear"]:
        raise CompressError("does not apply: the graph is quantized already")
    if gf.opset(proto) < _QDQ:
        raise CompressError(
            "does not apply: the graph's opset has no quantization", value=gf.opset(proto),
            rule=f"{_QDQ} or later", fix="export it with a later opset",
        )  # fmt: skip


def _with_shapes(prepared: Any) -> Any:
    """The graph with inferred shapes, marked as such, and a name for every node."""
    from onnxruntime.quantization.quant_utils import save_and_reload_model_with_shape_infer

    for index, node in enumerate(prepared.graph.node):
        node.name = f"{node.op_type}_{index}"
    return save_and_reload_model_with_shape_infer(prepared)


def _notes(data: bytes, rows: Tensors, left_out: int) -> tuple[str, ...]:
    import onnx

    proto = onnx.ModelProto.FromString(data)
    scaled = {name for node in proto.graph.node if node.op_type == "DequantizeLinear" for name in node.output}
    done: dict[bool, list[str]] = {True: [], False: []}
    for node in proto.graph.node:
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            quantized = node.op_type in QUANTIZED and not scaled.isdisjoint(node.input[:1])
            done[quantized].append(node.op_type)
    count = len(next(iter(rows.values())))
    return (
        f"calibrated on {count} rows" + (f", {left_out} with NaN or infinity left out" if left_out else ""),
        "int8: " + _count(done[True]),
        "float: " + _count(done[False]),
    )


def _count(names: list[str]) -> str:
    return ", ".join(f"{name} {names.count(name)}" for name in sorted(set(names))) or "none"
