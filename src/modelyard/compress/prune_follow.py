"""Follows dimensions through a graph, operator by operator; what is not understood is frozen and said."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from modelyard.compress.passes.layers import Array, Layer, array_of, attribute, known_shapes, layers
from modelyard.compress.prune_dims import Axis, Dims

_UNARY = frozenset(
    [
        "Abs",
        "Cast",
        "Celu",
        "Clip",
        "Dropout",
        "Elu",
        "Erf",
        "Exp",
        "Gelu",
        "HardSigmoid",
        "HardSwish",
        "Identity",
        "LeakyRelu",
        "Mish",
        "Neg",
        "Relu",
        "Selu",
        "Sigmoid",
        "Softplus",
        "Softsign",
        "Sqrt",
        "Swish",
        "Tanh",
        "ThresholdedRelu",
    ]
)
_MANY = frozenset(["Add", "Div", "Max", "Min", "Mul", "PRelu", "Pow", "Sub", "Sum", "Where"])
_POOLS = frozenset(["AveragePool", "GlobalAveragePool", "GlobalMaxPool", "LpPool", "MaxPool"])
_REDUCERS = frozenset(["ReduceL2", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum"])


@dataclass(slots=True)
class Follower:
    """What is known while a graph is walked: which axis of which tensor holds which dimension.

    `resized` lists Reshape nodes whose target holds a dimension, `grouped` depthwise convolutions.
    """

    proto: Any
    dims: Dims = field(default_factory=Dims)
    held: dict[str, Axis] = field(default_factory=dict)
    resized: list[tuple[Any, int, Axis]] = field(default_factory=list)
    grouped: list[tuple[Any, Axis]] = field(default_factory=list)
    made_by: dict[int, str] = field(default_factory=dict)
    """The layer that made a dimension, for notes."""
    constants: dict[str, Array] = field(default_factory=dict)
    shapes: dict[str, list[int | None]] = field(default_factory=dict)
    found: dict[str, Layer] = field(default_factory=dict)

    def walk(self) -> None:
        """Walks the whole graph once, in order."""
        self.constants = {item.name: array_of(item) for item in self.proto.graph.initializer}
        self.shapes = known_shapes(self.proto)
        self.found = {layer.name: layer for layer in layers(self.proto)[0]}
        for node in self.proto.graph.node:
            self._step(node)
        for item in self.proto.graph.output:
            if item.name in self.held:
                self.dims.freeze(self.held[item.name].dim, "is an output")

    def _step(self, node: Any) -> None:
        for name in _inner_reads(node):
            if name in self.held:
                self.dims.freeze(self.held[name].dim, f"is read by {node.op_type}")
        layer = self.found.get(node.output[0]) if node.output else None
        if layer is not None:
            (self._convolution if layer.kind == "Conv" else self._product)(layer)
            return
        inputs = [name for name in node.input if name in self.held]
        if not inputs or not node.output:
            return
        rule = self._rule(node.op_type)
        after = rule(node) if rule is not None else None
        if after is None:
            for name in inputs:
                self.dims.freeze(self.held[name].dim, f"meets {node.op_type}, which is not followed")
            return
        self.held[node.output[0]] = after

    def _rule(self, kind: str) -> Callable[[Any], Axis | None] | None:
        if kind in _UNARY:
            return lambda node: self.held.get(node.input[0])
        if kind in _MANY:
            return self._many
        if kind in _POOLS:
            return lambda node: _at(self.held.get(node.input[0]), 1)
        if kind in _REDUCERS:
            return self._reduce
        return {
            "BatchNormalization": self._normalise, "InstanceNormalization": self._normalise,
            "Flatten": self._flatten, "Reshape": self._reshape, "Transpose": self._transpose,
            "Softmax": self._softmax, "MatMul": self._attend, "LayerNormalization": self._layer_norm,
            "Unsqueeze": self._unsqueeze, "Squeeze": self._squeeze, "Pad": self._pad,
        }.get(kind)  # fmt: skip

    # Layers with weights

    def _convolution(self, layer: Layer) -> None:
        node, held = layer.node, self.held.get(layer.node.input[0])
        out, group = layer.values.shape[0], int(attribute(layer.node, "group", 1))
        if held is not None and held.axis != 1:
            self.dims.freeze(held.dim, "meets a convolution on another axis")
            held = None
        if group != 1:
            if held is not None and (out != group or layer.values.shape[1] != 1):
                self.dims.freeze(held.dim, "meets a convolution in groups")
            elif held is not None:
                self.dims.tie(held.dim, layer.weight, 0, held.inner, "along")
                self._bias(layer, held)
                self.grouped.append((node, held))
                self.held[layer.name] = held
            return
        if held is not None:
            self.dims.tie(held.dim, layer.weight, 1, held.inner, "in")
        self._make(layer, out, 0, 1)

    def _product(self, layer: Layer) -> None:
        held = self.held.get(layer.node.input[0])
        reads, makes = (1, 0) if layer.transposed else (0, 1)
        rank = 2 if layer.kind == "Gemm" else len(self.shapes.get(layer.node.input[0], ()))
        if held is not None and held.axis == rank - 1:
            self.dims.tie(held.dim, layer.weight, reads, held.inner, "in")
        elif held is not None:
            self.dims.freeze(held.dim, f"meets {layer.kind} on another axis")
        if rank >= 2:
            self._make(layer, layer.values.shape[makes], makes, rank - 1)

    def _make(self, layer: Layer, size: int, axis: int, output_axis: int) -> None:
        dim = self.dims.new(size)
        self.made_by[dim] = f"{layer.kind} {layer.name!r}"
        held = Axis(dim, output_axis)
        self.dims.tie(dim, layer.weight, axis, 1, "out")
        self._bias(layer, held)
        self.held[layer.name] = held

    def _bias(self, layer: Layer, held: Axis) -> None:
        if len(layer.node.input) < 3 or not layer.node.input[2]:
            return
        bias = self.constants.get(layer.node.input[2])
        if bias is None:
            self.dims.freeze(held.dim, "has a bias that is no constant")
        elif bias.size > 1:
            self.dims.tie(held.dim, layer.node.input[2], bias.ndim - 1, held.inner, "along")

    # Operators between them

    def _length(self, held: Axis) -> int:
        root, factor = self.dims.root(held.dim)
        return self.dims.size(root) * factor * held.inner

    def _many(self, node: Any) -> Axis | None:
        ranks = [self._rank(name) for name in node.input]
        if any(rank is None for rank in ranks):
            return None
        top = max(rank for rank in ranks if rank is not None)
        tracked = [
            Axis(self.held[name].dim, self.held[name].axis + top - (rank or 0), self.held[name].inner)
            for name, rank in zip(node.input, ranks, strict=True)
            if name in self.held
        ]
        first = tracked[0]
        if any(other.axis != first.axis for other in tracked):
            return None
        for name, rank in zip(node.input, ranks, strict=True):
            place = first.axis - (top - (rank or 0))
            if name in self.held or place < 0:
                continue
            shape: Any = self.constants[name].shape if name in self.constants else self.shapes[name]
            if shape[place] == 1:
                continue
            if name not in self.constants or shape[place] != self._length(first):
                return None
            self.dims.tie(first.dim, name, place, first.inner, "along")
        for other in tracked[1:]:
            if not self.dims.unite(first, other):
                return None
        return first

    def _rank(self, name: str) -> int | None:
        if name in self.constants:
            return self.constants[name].ndim
        return len(self.shapes[name]) if name in self.shapes else None

    def _normalise(self, node: Any) -> Axis | None:
        held = _at(self.held.get(node.input[0]), 1)
        if held is None or any(name not in self.constants for name in node.input[1:]):
            return None
        for name in node.input[1:]:
            self.dims.tie(held.dim, name, 0, held.inner, "along")
        return held

    def _flatten(self, node: Any) -> Axis | None:
        held, shape = _at(self.held.get(node.input[0]), 1), self.shapes.get(node.input[0])
        if held is None or shape is None or attribute(node, "axis", 1) != 1:
            return None
        tail = shape[2:]
        if any(size is None for size in tail):
            return None
        return Axis(held.dim, 1, held.inner * math.prod(size or 1 for size in tail))

    def _reshape(self, node: Any) -> Axis | None:
        held, target = self.held.get(node.input[0]), self.constants.get(node.input[1])
        before, after = self.shapes.get(node.input[0]), self.shapes.get(node.output[0])
        if held is None or target is None or not before or not after or held.axis < 1:
            return None
        # The batch stays in front; everything behind it must be known.
        if before[0] is not None or after[0] is not None or None in before[1:] or None in after[1:]:
            return None
        old, new = [size or 1 for size in before[1:]], [size or 1 for size in after[1:]]
        at = held.axis - 1
        place = next(
            (
                index
                for index in range(len(new))
                if math.prod(new[:index]) == math.prod(old[:at]) and (new[index] > 1 or old[at] == 1)
            ),
            None,
        )
        if place is None:
            return None
        moved = self._regrouped(held, old, at, new[place])
        if moved is None:
            return None
        kept = Axis(moved.dim, place + 1, moved.inner)
        if int(target[place + 1]) > 0:
            self.resized.append((node, place + 1, kept))
        return kept

    def _regrouped(self, held: Axis, old: list[int], at: int, size: int) -> Axis | None:
        """The axis after a reshape that leaves it, joins it with those behind it, or cuts it."""
        for end in range(at + 1, len(old) + 1):
            if math.prod(old[at:end]) == size:
                return Axis(held.dim, 0, held.inner * math.prod(old[at + 1 : end]))
        if old[at] % size:
            return None
        cut = self.dims.coarsen(held, size)
        return None if cut is None else Axis(cut, 0)

    def _transpose(self, node: Any) -> Axis | None:
        held, order = self.held[node.input[0]], attribute(node, "perm", None)
        return None if order is None else Axis(held.dim, list(order).index(held.axis), held.inner)

    def _softmax(self, node: Any) -> Axis | None:
        held, rank = self.held[node.input[0]], self._rank(node.input[0])
        version = next(
            (item.version for item in self.proto.opset_import if item.domain in ("", "ai.onnx")), 0
        )
        if rank is None or version < 13:
            return None
        return held if attribute(node, "axis", -1) % rank != held.axis else None

    def _layer_norm(self, node: Any) -> Axis | None:
        held, rank = self.held.get(node.input[0]), self._rank(node.input[0])
        if held is None or rank is None:
            return None
        return held if held.axis < attribute(node, "axis", -1) % rank else None

    def _attend(self, node: Any) -> Axis | None:
        """A product of two tensors made by the graph, of which the heads are a batch axis."""
        ranks = [self._rank(name) for name in node.input]
        if ranks[0] is None or ranks[0] != ranks[1]:
            return None
        sides = [self.held.get(name) for name in node.input]
        first = sides[0] or sides[1]
        if first is None or first.axis >= ranks[0] - 2:
            return None
        for side, name in zip(sides, node.input, strict=True):
            if side is None:
                if name in self.constants or self.shapes[name][first.axis] != 1:
                    return None
            elif side.axis != first.axis or not self.dims.unite(first, side):
                return None
        return first

    def _axes(self, node: Any) -> list[int] | None:
        rank = self._rank(node.input[0])
        given = attribute(node, "axes", None)
        if given is None and len(node.input) > 1 and node.input[1] in self.constants:
            given = self.constants[node.input[1]].ravel().tolist()
        return None if given is None or rank is None else [int(axis) % rank for axis in given]

    def _reduce(self, node: Any) -> Axis | None:
        held, axes = self.held.get(node.input[0]), self._axes(node)
        if held is None or not axes or held.axis in axes:
            return None
        gone = 0 if attribute(node, "keepdims", 1) else sum(axis < held.axis for axis in axes)
        return Axis(held.dim, held.axis - gone, held.inner)

    def _squeeze(self, node: Any) -> Axis | None:
        held, axes = self.held.get(node.input[0]), self._axes(node)
        if held is None or not axes or held.axis in axes:
            return None
        return Axis(held.dim, held.axis - sum(axis < held.axis for axis in axes), held.inner)

    def _unsqueeze(self, node: Any) -> Axis | None:
        held = self.held.get(node.input[0])
        given = self.constants.get(node.input[1]) if len(node.input) > 1 else None
        rank = self._rank(node.input[0])
        if held is None or given is None or rank is None:
            return None
        added = {int(axis) % (rank + given.size) for axis in given.ravel()}
        left = [axis for axis in range(rank + given.size) if axis not in added]
        return Axis(held.dim, left[held.axis], held.inner)

    def _pad(self, node: Any) -> Axis | None:
        held = self.held.get(node.input[0])
        pads = self.constants.get(node.input[1]) if len(node.input) > 1 else None
        if held is None or pads is None or len(node.input) > 3:
            return None
        return held if not pads.reshape(2, -1)[:, held.axis].any() else None


def _at(held: Axis | None, axis: int) -> Axis | None:
    return held if held is not None and held.axis == axis else None


def _inner_reads(node: Any) -> set[str]:
    names: set[str] = set()
    for item in node.attribute:
        for graph in (*([item.g] if item.HasField("g") else []), *item.graphs):
            names |= {output.name for output in graph.output}
            for inner in graph.node:
                names |= set(inner.input) | _inner_reads(inner)
    return names
