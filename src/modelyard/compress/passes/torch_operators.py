"""ONNX operators as torch functions, as many as networks for prediction need."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch.nn import functional

from modelyard.core.errors import CompressError

Tensor: TypeAlias = torch.Tensor
Values: TypeAlias = Sequence[Any]
Attributes: TypeAlias = Mapping[str, Any]
Operator: TypeAlias = Callable[[Values, Attributes], Tensor]

_KINDS = {
    1: torch.float32, 6: torch.int32, 7: torch.int64, 9: torch.bool, 10: torch.float16, 11: torch.float64,
    2: torch.uint8, 3: torch.int8, 16: torch.bfloat16,
}  # fmt: skip


def _unary(function: Callable[[Tensor], Tensor]) -> Operator:
    return lambda values, attributes: function(values[0])


def _binary(function: Callable[[Tensor, Tensor], Tensor]) -> Operator:
    return lambda values, attributes: function(values[0], values[1])


def _integers(value: Any) -> list[int]:
    return [int(item) for item in value.reshape(-1).tolist()]


def _pads(attributes: Attributes, rank: int) -> tuple[list[int], bool]:
    """Padding in torch's order, and whether it is the same on both sides."""
    automatic = attributes.get("auto_pad", b"NOTSET")
    if automatic not in (b"NOTSET", b"VALID"):
        raise CompressError("automatic padding cannot be trained", value=automatic.decode())
    pads = list(attributes.get("pads", [0] * (2 * rank)))
    order = [pads[axis + side * rank] for axis in reversed(range(rank)) for side in (0, 1)]
    return order, pads[:rank] == pads[rank:]


def _conv(values: Values, attributes: Attributes) -> Tensor:
    x, weight = values[0], values[1]
    rank = weight.ndim - 2
    order, even = _pads(attributes, rank)
    pads = list(attributes.get("pads", [0] * (2 * rank)))[:rank]
    if not even:
        x, pads = functional.pad(x, order), [0] * rank
    function = (functional.conv1d, functional.conv2d, functional.conv3d)[rank - 1]
    return function(
        x, weight, values[2] if len(values) > 2 else None,
        stride=list(attributes.get("strides", [1] * rank)), padding=pads,
        dilation=list(attributes.get("dilations", [1] * rank)), groups=int(attributes.get("group", 1)),
    )  # fmt: skip


def _gemm(values: Values, attributes: Attributes) -> Tensor:
    left = values[0].T if attributes.get("transA", 0) else values[0]
    right = values[1].T if attributes.get("transB", 0) else values[1]
    found = attributes.get("alpha", 1.0) * (left @ right)
    if len(values) > 2 and values[2] is not None:
        found = found + attributes.get("beta", 1.0) * values[2]
    return torch.as_tensor(found)


def _pool(values: Values, attributes: Attributes, *, largest: bool) -> Tensor:
    x, size = values[0], list(attributes["kernel_shape"])
    rank = len(size)
    strides = list(attributes.get("strides", [1] * rank))
    order, even = _pads(attributes, rank)
    ceil = bool(attributes.get("ceil_mode", 0))
    if largest:
        if any(order):
            x = functional.pad(x, order, value=float("-inf"))
        function = (functional.max_pool1d, functional.max_pool2d, functional.max_pool3d)[rank - 1]
        dilations = list(attributes.get("dilations", [1] * rank))
        return torch.as_tensor(function(x, size, strides, 0, dilations, ceil))
    pads = list(attributes.get("pads", [0] * (2 * rank)))[:rank]
    if not even or (ceil and any(pads)):
        raise CompressError("uneven padding of an average cannot be trained", value=pads)
    counted = bool(attributes.get("count_include_pad", 0))
    average = (functional.avg_pool1d, functional.avg_pool2d, functional.avg_pool3d)[rank - 1]
    return torch.as_tensor(average(x, size, strides, pads, ceil, counted))


def _axes(values: Values, attributes: Attributes) -> list[int] | None:
    if len(values) > 1 and values[1] is not None:
        return _integers(values[1])
    return list(attributes["axes"]) if "axes" in attributes else None


def _reduce(function: Callable[..., Tensor]) -> Operator:
    def reduced(values: Values, attributes: Attributes) -> Tensor:
        axes = _axes(values, attributes)
        if axes is None:
            axes = list(range(values[0].ndim))
        return function(values[0], axes, keepdim=bool(attributes.get("keepdims", 1)))

    return reduced


def _reshape(values: Values, attributes: Attributes) -> Tensor:
    target = _integers(values[1])
    if not attributes.get("allowzero", 0):
        target = [values[0].shape[place] if size == 0 else size for place, size in enumerate(target)]
    return torch.as_tensor(values[0].reshape(target))


def _flatten(values: Values, attributes: Attributes) -> Tensor:
    axis = int(attributes.get("axis", 1)) % (values[0].ndim + 1)
    rows = 1
    for size in values[0].shape[:axis]:
        rows *= size
    return torch.as_tensor(values[0].reshape(rows, -1))


def _squeeze(values: Values, attributes: Attributes) -> Tensor:
    axes = _axes(values, attributes)
    return torch.as_tensor(values[0].squeeze() if axes is None else values[0].squeeze(axes))


def _unsqueeze(values: Values, attributes: Attributes) -> Tensor:
    axes = _axes(values, attributes) or []
    found = values[0]
    rank = found.ndim + len(axes)
    for axis in sorted(axis % rank for axis in axes):
        found = found.unsqueeze(axis)
    return torch.as_tensor(found)


def _layer_norm(values: Values, attributes: Attributes) -> Tensor:
    axis = int(attributes.get("axis", -1)) % values[0].ndim
    bias = values[2] if len(values) > 2 else None
    return functional.layer_norm(
        values[0], values[0].shape[axis:], values[1], bias, float(attributes.get("epsilon", 1e-5))
    )


def _batch_norm(values: Values, attributes: Attributes) -> Tensor:
    x, scale, bias, mean, variance = values[:5]
    return functional.batch_norm(
        x, mean, variance, scale, bias, False, 0.0, float(attributes.get("epsilon", 1e-5))
    )


def _clip(values: Values, attributes: Attributes) -> Tensor:
    low = values[1] if len(values) > 1 else attributes.get("min")
    high = values[2] if len(values) > 2 else attributes.get("max")
    low, high = (None if bound is None else float(bound) for bound in (low, high))
    return torch.as_tensor(values[0] if low is None and high is None else values[0].clamp(low, high))


def _slice(values: Values, attributes: Attributes) -> Tensor:
    if len(values) < 3:
        raise CompressError("a slice of the old form cannot be trained", rule="opset 10 or later")
    x, starts, ends = values[0], _integers(values[1]), _integers(values[2])
    axes = _integers(values[3]) if len(values) > 3 and values[3] is not None else list(range(len(starts)))
    steps = _integers(values[4]) if len(values) > 4 else [1] * len(starts)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        if step < 1:
            raise CompressError("a slice that runs backwards cannot be trained", value=step)
        places = range(x.shape[axis])[slice(start, end, step)]
        x = x.index_select(axis, torch.tensor(list(places), dtype=torch.int64))
    return torch.as_tensor(x)


def _gather(values: Values, attributes: Attributes) -> Tensor:
    axis = int(attributes.get("axis", 0)) % values[0].ndim
    places = values[1].long()
    places = torch.where(places < 0, places + values[0].shape[axis], places)
    found = values[0].index_select(axis, places.reshape(-1))
    return torch.as_tensor(
        found.reshape(*values[0].shape[:axis], *places.shape, *values[0].shape[axis + 1 :])
    )


def _pad(values: Values, attributes: Attributes) -> Tensor:
    if attributes.get("mode", b"constant") != b"constant" or len(values) < 2 or len(values) > 3:
        raise CompressError("this padding cannot be trained", value=attributes.get("mode"))
    pads, rank = _integers(values[1]), values[0].ndim
    order = [pads[axis + side * rank] for axis in reversed(range(rank)) for side in (0, 1)]
    fill = float(values[2]) if len(values) > 2 and values[2] is not None else 0.0
    return functional.pad(values[0], order, value=fill)


def _gelu(values: Values, attributes: Attributes) -> Tensor:
    return functional.gelu(values[0], approximate=attributes.get("approximate", b"none").decode())


OPERATORS: dict[str, Operator] = {
    "Abs": _unary(torch.abs),
    "Add": _binary(torch.add),
    "AveragePool": lambda values, attributes: _pool(values, attributes, largest=False),
    "BatchNormalization": _batch_norm,
    "Cast": lambda values, attributes: values[0].to(_KINDS[int(attributes["to"])]),
    "Clip": _clip,
    "Concat": lambda values, attributes: torch.cat(list(values), dim=int(attributes["axis"])),
    "Conv": _conv,
    "Div": _binary(torch.div),
    "Dropout": _unary(lambda x: x),
    "Elu": lambda values, attributes: functional.elu(values[0], float(attributes.get("alpha", 1.0))),
    "Erf": _unary(torch.erf),
    "Exp": _unary(torch.exp),
    "Expand": lambda values, attributes: values[0] * torch.ones(_integers(values[1]), dtype=values[0].dtype),
    "Flatten": _flatten,
    "Gather": _gather,
    "Gelu": _gelu,
    "Gemm": _gemm,
    "GlobalAveragePool": _unary(lambda x: x.mean(dim=tuple(range(2, x.ndim)), keepdim=True)),
    "GlobalMaxPool": _unary(lambda x: x.amax(dim=tuple(range(2, x.ndim)), keepdim=True)),
    "HardSigmoid": lambda values, attributes: (
        values[0] * float(attributes.get("alpha", 0.2)) + float(attributes.get("beta", 0.5))
    ).clamp(0, 1),
    "HardSwish": _unary(functional.hardswish),
    "Identity": _unary(lambda x: x),
    "IsNaN": _unary(torch.isnan),
    "LayerNormalization": _layer_norm,
    "LeakyRelu": lambda values, attributes: functional.leaky_relu(
        values[0], float(attributes.get("alpha", 0.01))
    ),
    "Log": _unary(torch.log),
    "MatMul": _binary(torch.matmul),
    "Max": _binary(torch.maximum),
    "MaxPool": lambda values, attributes: _pool(values, attributes, largest=True),
    "Min": _binary(torch.minimum),
    "Mul": _binary(torch.mul),
    "Neg": _unary(torch.neg),
    "Pad": _pad,
    "Pow": _binary(torch.pow),
    "Reciprocal": _unary(torch.reciprocal),
    "ReduceMax": _reduce(torch.amax),
    "ReduceMean": _reduce(torch.mean),
    "ReduceSum": _reduce(torch.sum),
    "Relu": _unary(torch.relu),
    "Reshape": _reshape,
    "Shape": _unary(lambda x: torch.tensor(x.shape)),
    "Sigmoid": _unary(torch.sigmoid),
    "Slice": _slice,
    "Softmax": lambda values, attributes: torch.softmax(values[0], dim=int(attributes.get("axis", -1))),
    "Softplus": _unary(functional.softplus),
    "Sqrt": _unary(torch.sqrt),
    "Squeeze": _squeeze,
    "Sub": _binary(torch.sub),
    "Tanh": _unary(torch.tanh),
    "Transpose": lambda values, attributes: values[0].permute(
        list(attributes.get("perm", reversed(range(values[0].ndim))))
    ),
    "Unsqueeze": _unsqueeze,
    "Where": lambda values, attributes: torch.where(values[0], values[1], values[2]),
}
"""By operator of the standard domain. What is not here cannot be trained, and the error says so."""
