"""An ONNX graph as a torch module whose weights can be trained and written back to the same graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np
import torch

from modelyard.compress.passes.layers import array_of, put
from modelyard.compress.passes.torch_operators import OPERATORS
from modelyard.core.errors import CompressError
from modelyard.model.model import MAIN_OUTPUT

Tensor: TypeAlias = torch.Tensor
Hook: TypeAlias = Callable[[str, str, Tensor], Tensor]
"""Called with "weight" or "input", a layer's output name and the tensor that the layer is about to read."""

_LEARNS = {
    "Conv": (1, 2), "Gemm": (1, 2), "MatMul": (0, 1), "LayerNormalization": (1, 2),
    "BatchNormalization": (1, 2), "Gather": (0,),
}  # fmt: skip
_PASSING = ("Cast", "Flatten", "Identity", "Reshape", "Squeeze")
_SHARP = 1e-7


class GraphModule(torch.nn.Module):
    """Runs a graph's nodes in order. Batch norms keep their statistics; nothing is random.

    What learns: float32 constants that are weights or biases of Conv, Gemm and MatMul, scales and biases of
    normalisations, tables that Gather reads, and what is added to a product. `names` lists them in the order
    of the parameters. Raises `CompressError` for operators that are not known.
    """

    def __init__(self, proto: Any) -> None:
        super().__init__()
        self.proto = proto
        unknown = sorted(
            {node.op_type for node in proto.graph.node if node.op_type not in (*OPERATORS, "Constant")}
            | {
                f"{node.domain}.{node.op_type}"
                for node in proto.graph.node
                if node.domain not in ("", "ai.onnx")
            }
        )
        if unknown:
            raise CompressError(
                "does not apply: the graph has operators that cannot be trained", value=unknown
            )
        learning = _learning(proto)
        self.names = [item.name for item in proto.graph.initializer if item.name in learning]
        self.weights = torch.nn.ParameterList()
        self._fixed: dict[str, Tensor] = {}
        for item in proto.graph.initializer:
            values = torch.from_numpy(array_of(item).astype(_plain(item.data_type), copy=False))
            if item.name in learning:
                self.weights.append(torch.nn.Parameter(values))
            else:
                self._fixed[item.name] = values
        self._nodes = [(node, _attributes(node)) for node in proto.graph.node]
        self.inputs = [item.name for item in proto.graph.input]
        known = {item.name for item in proto.graph.output}
        self.output = next(name for name in MAIN_OUTPUT.values() if name in known)
        self.logits = _before_softmax(proto, self.output)
        self.hook: Hook | None = None

    def named(self) -> dict[str, torch.nn.Parameter]:
        """What learns, by the constant's name."""
        return dict(zip(self.names, self.weights, strict=True))

    def layer_weights(self) -> dict[str, torch.nn.Parameter]:
        """The weights of Conv, Gemm and MatMul, by the constant's name."""
        named = self.named()
        kinds = ("Conv", "Gemm", "MatMul")
        wanted = [node.input[1] for node, _ in self._nodes if node.op_type in kinds]
        return {name: named[name] for name in wanted if name in named}

    def codebooks(self) -> list[torch.nn.Parameter]:
        """The tables of one dimension that a Gather makes weights from."""
        named = self.named()
        read = [node.input[0] for node, _ in self._nodes if node.op_type == "Gather"]
        return [named[name] for name in read if name in named and named[name].ndim == 1]

    def features(self) -> str:
        """The tensor that the last layer with weights reads: what the network knows before it decides."""
        named = self.named()
        last = [
            node
            for node, _ in self._nodes
            if node.op_type in ("Conv", "Gemm", "MatMul") and node.input[1] in named
        ]
        if not last:
            raise CompressError("the graph has no layer with weights to take features from")
        return str(last[-1].input[0])

    def run(self, columns: Mapping[str, Tensor], wanted: tuple[str, ...]) -> list[Tensor]:
        """The tensors of those names for a batch of rows by input name."""
        values: dict[str, Any] = {**self._fixed, **self.named(), **columns}
        for node, attributes in self._nodes:
            if node.op_type == "Constant":
                values[node.output[0]] = torch.from_numpy(_constant(attributes))
                continue
            given: list[Any] = [values[name] if name else None for name in node.input]
            if (
                self.hook is not None
                and node.op_type in ("Conv", "Gemm", "MatMul")
                and node.input[1] in self.names
            ):
                given[0] = self.hook("input", node.output[0], given[0])
                given[1] = self.hook("weight", node.output[0], given[1])
            values[node.output[0]] = OPERATORS[node.op_type](given, attributes)
        return [values[name] for name in wanted]

    def forward(self, columns: Mapping[str, Tensor]) -> Tensor:
        """Logits [N, K] for classification (before the softmax, else logarithms), else predictions [N, 1]."""
        if self.output == MAIN_OUTPUT["regression"]:
            return self.run(columns, (self.output,))[0]
        if self.logits:
            return self.run(columns, (self.logits,))[0].flatten(1)
        return self.run(columns, (self.output,))[0].clamp_min(_SHARP).log()

    def written(self) -> Any:
        """A copy of the graph with the weights as they are now."""
        copy = type(self.proto).FromString(self.proto.SerializeToString())
        for name, weight in self.named().items():
            put(copy, name, weight.detach().numpy())
        return copy


def _learning(proto: Any) -> set[str]:
    import onnx

    floats = {item.name for item in proto.graph.initializer if item.data_type == onnx.TensorProto.FLOAT}
    made = {node.output[0]: node.op_type for node in proto.graph.node if node.output}
    found: set[str] = set()
    for node in proto.graph.node:
        found |= {node.input[place] for place in _LEARNS.get(node.op_type, ()) if place < len(node.input)}
        if node.op_type == "Add" and {made.get(name) for name in node.input} & {"MatMul", "Gemm", "Conv"}:
            found |= set(node.input)
    return found & floats


def _plain(data_type: int) -> Any:
    """The numpy type that torch takes for a constant."""
    import onnx

    if data_type == onnx.TensorProto.STRING:
        raise CompressError("does not apply: a graph with text cannot be trained")
    kind = onnx.helper.tensor_dtype_to_np_dtype(data_type)
    return np.float32 if kind.kind == "V" or kind.name == "bfloat16" else kind


def _attributes(node: Any) -> dict[str, Any]:
    import onnx

    return {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}


def _constant(attributes: Mapping[str, Any]) -> Any:
    for name, value in attributes.items():
        if name == "value":
            return array_of(value)
        if name in ("value_float", "value_floats"):
            return np.asarray(value, dtype=np.float32)
        if name in ("value_int", "value_ints"):
            return np.asarray(value, dtype=np.int64)
    raise CompressError("a constant of this kind cannot be trained", value=sorted(attributes))


def _before_softmax(proto: Any, output: str) -> str:
    """The tensor whose softmax over the last axis is the answer; empty when there is none."""
    made = {node.output[0]: node for node in proto.graph.node if node.output}
    node = made.get(output)
    while node is not None and node.op_type in _PASSING:
        node = made.get(node.input[0])
    return str(node.input[0]) if node is not None and node.op_type == "Softmax" else ""
