"""Multiply-accumulates of a node, from its shapes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

_WEIGHT = {"Conv": 1, "ConvInteger": 1, "QLinearConv": 3, "FusedConv": 1}
_GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
COUNTED = (
    *_WEIGHT, *_GATES, "ConvTranspose", "Einsum", "FusedGemm", "FusedMatMul", "Gemm", "MatMul",
    "MatMulInteger", "MatMulNBits", "QGemm", "QLinearMatMul",
)  # fmt: skip
"""The operators whose work is multiplication; all others count as none."""


def macs(node: Any, shapes: Mapping[str, tuple[int, ...] | None]) -> int:
    """Multiply-accumulates of one run of an ONNX node; 0 for other operators and unknown shapes.

    A convolution multiplies each of its answers by one filter, a matrix product by one column; recurrent
    layers count every step and direction. Biases and activations are not counted.
    """
    kind = node.op_type
    if kind not in COUNTED:
        return 0
    given = [shapes.get(name) for name in node.input]
    gives = shapes.get(node.output[0]) if node.output else None
    try:
        return int(_count(node, kind, given, gives))
    except (IndexError, TypeError, ValueError, ZeroDivisionError):
        return 0  # A shape that is not known, or is not what the operator wants.


def _count(node: Any, kind: str, given: list[Any], gives: Any) -> Any:  # noqa: PLR0911 (one a formula)
    if kind in _WEIGHT:
        return math.prod(gives) * math.prod(given[_WEIGHT[kind]][1:])
    if kind == "ConvTranspose":
        return math.prod(given[0]) * math.prod(given[1][1:])
    if kind in _GATES:
        steps, rows = given[0][:2] if not _attribute(node, "layout", 0) else given[0][1::-1]
        directions, wide, inward = given[1]
        return int(steps * rows * directions * wide * (inward + given[2][2]))
    if kind == "Einsum":
        return _einsum(node, given)
    if kind == "MatMulNBits":
        return math.prod(gives) * int(_attribute(node, "K", 0))
    if kind in ("Gemm", "FusedGemm", "QGemm"):
        return math.prod(gives) * int(given[0][0 if _attribute(node, "transA", 0) else 1])
    return math.prod(gives) * int(given[0][-1])


def _einsum(node: Any, given: list[Any]) -> int:
    equation = _attribute(node, "equation", b"").decode().replace(" ", "")
    sizes: dict[str, int] = {}
    for letters, shape in zip(equation.partition("->")[0].split(","), given, strict=True):
        sizes |= dict(zip(letters, shape, strict=True))
    return math.prod(sizes.values())


def _attribute(node: Any, name: str, default: Any) -> Any:
    import onnx

    for item in node.attribute:
        if item.name == name:
            return onnx.helper.get_attribute_value(item)
    return default
