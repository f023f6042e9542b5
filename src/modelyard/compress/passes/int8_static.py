"""int8 weights and activations, with ranges measured on real rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from modelyard.compress import graph_file as gf
from modelyard.compress.pass_protocol import Compressed
from modelyard.core.spec import Tensors

if TYPE_CHECKING:
    from modelyard.model.model import Model

_FEWEST = 16
_BATCH = 64
_QUANTIZED = (
    *gf.WEIGHTED, "Add", "AveragePool", "Clip", "Concat", "Flatten", "GlobalAveragePool", "LeakyRelu",
    "MaxPool", "Mul", "Pad", "Relu", "Reshape", "Squeeze", "Transpose", "Unsqueeze",
)  # fmt: skip
"""Weighted operators and what commonly stands between them; never a softmax, whose answers would be steps."""


@dataclass(frozen=True, slots=True)
class StaticInt8:
    """Static quantization to QDQ form, weights per channel, ranges by minimum and maximum.

    `activations` chooses signed or unsigned eight bits: which one is faster depends on the processor.
    """

    activations: Literal["s8", "u8"] = "s8"

    @property
    def name(self) -> str:
        return "int8-static" if self.activations == "s8" else "int8-static-u8"

    def apply(self, model: Model, calibration: Tensors) -> Compressed:
        """The quantized model; `CompressError` without weights to quantize or rows to calibrate with."""
        proto = gf.parse(model)
        gf.require_weights(proto)
        rows, left_out = gf.usable_rows(model, calibration, _FEWEST)
        from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

        signed = self.activations == "s8"
        with gf.private_folder() as folder, gf.silence():
            target = folder / "quantized.onnx"
            quantize_static(
                gf.prepared(proto),
                target,
                _Rows(rows),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=list(_QUANTIZED),
                per_channel=True,
                activation_type=QuantType.QInt8 if signed else QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                calibration_providers=["CPUExecutionProvider"],
            )
            data = target.read_bytes()
        return Compressed(gf.reread(data, model), _notes(data, rows, left_out))


def _notes(data: bytes, rows: Tensors, left_out: int) -> tuple[str, ...]:
    import onnx

    proto = onnx.ModelProto.FromString(data)
    scaled = {name for node in proto.graph.node if node.op_type == "DequantizeLinear" for name in node.output}
    done: dict[bool, list[str]] = {True: [], False: []}
    for node in proto.graph.node:
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            quantized = node.op_type in _QUANTIZED and not scaled.isdisjoint(node.input[:1])
            done[quantized].append(node.op_type)
    count = len(next(iter(rows.values())))
    return (
        f"calibrated on {count} rows" + (f", {left_out} with NaN or infinity left out" if left_out else ""),
        "int8: " + _count(done[True]),
        "float: " + _count(done[False]),
    )


def _count(names: list[str]) -> str:
    return ", ".join(f"{name} {names.count(name)}" for name in sorted(set(names))) or "none"


class _Rows:
    """Calibration rows in batches, as onnxruntime's `CalibrationDataReader` hands them out."""

    def __init__(self, rows: Tensors) -> None:
        self._batches = self._cut(rows)

    @staticmethod
    def _cut(rows: Tensors) -> Iterator[dict[str, np.ndarray[Any, Any]]]:
        count = len(next(iter(rows.values())))
        for start in range(0, count, _BATCH):
            yield {name: values[start : start + _BATCH] for name, values in rows.items()}

    def get_next(self) -> dict[str, np.ndarray[Any, Any]] | None:
        """The next batch, `None` at the end."""
        return next(self._batches, None)

    def __iter__(self) -> Iterator[dict[str, np.ndarray[Any, Any]]]:
        return self._batches
