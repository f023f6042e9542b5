"""The layers of a graph that carry constant weights, and the few edits that passes make to them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from modelyard.compress import graph_file as gf
from modelyard.compress.pass_protocol import Compressed
from modelyard.core.errors import CompressError

if TYPE_CHECKING:
    from modelyard.model.model import Model

Array: TypeAlias = npt.NDArray[Any]

_STANDARD = ("", "ai.onnx", "ai.onnx.ml")


@dataclass(frozen=True, slots=True)
class Layer:
    """A Conv, Gemm or MatMul whose second input is a float32 constant that no other node reads.

    `values` are the weights as stored: `[out, in / group, *kernel]` for Conv, a matrix otherwise.
    """

    node: Any
    weight: str
    bias: str
    """The name of the constant bias; empty where there is none."""
    values: Array

    @property
    def kind(self) -> str:
        return str(self.node.op_type)

    @property
    def name(self) -> str:
        """What the layer is called in notes: the name of its output."""
        return str(self.node.output[0])

    @property
    def transposed(self) -> bool:
        """Whether the stored matrix is `[out, in]` (Gemm with transB)."""
        return self.kind == "Gemm" and bool(attribute(self.node, "transB", 0))

    def matrix(self) -> Array:
        """The weights as `[in, out]` (Gemm, MatMul) or `[in / group * kernel, out]` (Conv)."""
        if self.kind == "Conv":
            return self.values.reshape(len(self.values), -1).T
        return self.values.T if self.transposed else self.values


def editable(model: Model) -> Any:
    """The model's graph with constants folded and batch norms fused, ready to be edited.

    Raises `CompressError` where no Conv, Gemm or MatMul has constant weights.
    """
    found = gf.parse(model)
    gf.require_weights(found)
    try:
        better = gf.optimized(found)
    except CompressError:
        return found
    known = {node.domain for node in found.graph.node} | {*_STANDARD}
    return better if all(node.domain in known for node in better.graph.node) else found


def layers(proto: Any) -> tuple[list[Layer], list[str]]:
    """The layers in order, and a word about each weighted node that is left alone."""
    constants = {item.name: item for item in proto.graph.initializer}
    uses = Counter(name for node in proto.graph.node for name in gf.reads(node))
    uses.update(item.name for item in proto.graph.output)
    found: list[Layer] = []
    left: list[str] = []
    for node in proto.graph.node:
        if node.op_type not in gf.WEIGHTED or node.domain not in _STANDARD or len(node.input) < 2:
            continue
        why = _why_not(node, constants, uses)
        if why:
            left.append(f"left alone: {node.op_type} {node.output[0]!r}, {why}")
            continue
        bias = node.input[2] if len(node.input) > 2 and node.input[2] in constants else ""
        found.append(Layer(node, node.input[1], bias, array_of(constants[node.input[1]])))
    return found, left


def known_shapes(proto: Any) -> dict[str, list[int | None]]:
    """The shape of every tensor that inference knows; `None` for a size that it does not."""
    import onnx

    try:
        found = onnx.shape_inference.infer_shapes(proto, data_prop=True).graph
    except onnx.shape_inference.InferenceError:
        found = proto.graph
    return {
        item.name: [
            dim.dim_value if dim.HasField("dim_value") else None for dim in item.type.tensor_type.shape.dim
        ]
        for item in (*found.input, *found.value_info, *found.output)
        if item.type.HasField("tensor_type") and item.type.tensor_type.HasField("shape")
    }


def _why_not(node: Any, constants: dict[str, Any], uses: Counter[str]) -> str:
    import onnx

    tensor = constants.get(node.input[1])
    if tensor is None:
        return "its weights are no constant"
    if tensor.data_type != onnx.TensorProto.FLOAT:
        return "its weights are not float32"
    if uses[node.input[1]] > 1:
        return "its weights are used twice"
    if 0 in tensor.dims or (node.op_type != "Conv" and len(tensor.dims) != 2):
        return "its weights are empty or no matrix"
    if node.op_type == "Gemm" and attribute(node, "transA", 0):
        return "its input is transposed"
    return "" if np.isfinite(array_of(tensor)).all() else "its weights are not finite"


def some_layers(proto: Any) -> tuple[list[Layer], list[str]]:
    """As `layers`, and `CompressError` when there is none that can be changed."""
    found, left = layers(proto)
    if not found:
        raise CompressError("does not apply: no layer can be changed", value="; ".join(left) or None)
    return found, left


def attribute(node: Any, name: str, default: Any) -> Any:
    """The value of a node's attribute, the default where it is not given."""
    import onnx

    for item in node.attribute:
        if item.name == name:
            return onnx.helper.get_attribute_value(item)
    return default


def array_of(tensor: Any) -> Array:
    """A constant as an array of its own."""
    import onnx

    return np.array(onnx.numpy_helper.to_array(tensor))


def constant_of(proto: Any, name: str) -> Array:
    """The constant of that name; `KeyError` when there is none."""
    for item in proto.graph.initializer:
        if item.name == name:
            return array_of(item)
    raise KeyError(name)


def put(proto: Any, name: str, values: Array) -> None:
    """Sets a constant: in its place when it exists, else a new one."""
    import onnx

    made = onnx.numpy_helper.from_array(np.ascontiguousarray(values), name)
    for item in proto.graph.initializer:
        if item.name == name:
            item.CopyFrom(made)
            return
    proto.graph.initializer.append(made)


def fresh(proto: Any, stem: str) -> str:
    """A tensor name that the graph does not use yet."""
    taken = {item.name for item in (*proto.graph.initializer, *proto.graph.input)}
    stack = list(proto.graph.node)
    while stack:
        node = stack.pop()
        taken |= {*node.input, *node.output}
        for item in node.attribute:
            for graph in (*([item.g] if item.HasField("g") else []), *item.graphs):
                stack.extend(graph.node)
                taken |= {constant.name for constant in graph.initializer}
    number = 0
    while f"{stem}_{number}" in taken:
        number += 1
    return f"{stem}_{number}"


def replace_node(proto: Any, old: Any, new: Iterable[Any]) -> None:
    """Puts other nodes in a node's place, in order."""
    nodes: list[Any] = []
    for node in proto.graph.node:
        nodes.extend(new if node is old else [node])
    copies = [type(node).FromString(node.SerializeToString()) for node in nodes]
    del proto.graph.node[:]
    proto.graph.node.extend(copies)


def done(proto: Any, model: Model, notes: Iterable[str]) -> Compressed:
    """The edited graph through the strict reader."""
    gf.drop_dead(proto.graph)
    # Shapes of before would contradict what the edits made of them.
    del proto.graph.value_info[:]
    return Compressed(gf.reread(proto.SerializeToString(deterministic=True), model), tuple(notes))


def share(part: float, whole: float) -> str:
    """A part in percent.

    >>> share(1, 8)
    '12.5 %'
    """
    return f"{100 * part / whole:.3g} %" if whole else "0 %"
