"""Each node of a graph with its shapes, its multiplications and the bytes that it moves."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from modelyard.compress.execution import label, meant_int8
from modelyard.compress.graph_file import parse
from modelyard.compress.inspect.macs import macs
from modelyard.core.spec import DYNAMIC, Tensors
from modelyard.model.trace import intermediate

if TYPE_CHECKING:
    from modelyard.model.model import Model

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class TensorFact:
    """A tensor of the graph: its shape (`None`: not known), its bytes, whether it is a constant."""

    name: str
    shape: Shape | None
    size: int
    constant: bool


@dataclass(frozen=True, slots=True)
class NodeFact:
    """A node: `macs` multiply-accumulates a run, `weights` bytes of constants, `moved` bytes in and out."""

    index: int
    name: str
    operator: str
    reads: tuple[str, ...]
    gives: tuple[str, ...]
    macs: int
    weights: int
    moved: int
    int8: bool
    """Meant to be computed in int8."""


@dataclass(frozen=True, slots=True)
class GraphFacts:
    """What is known of a graph without a clock, for one row (or the rows given)."""

    nodes: tuple[NodeFact, ...]
    tensors: Mapping[str, TensorFact]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    bytes: int
    notes: tuple[str, ...]

    @property
    def macs(self) -> int:
        return sum(node.macs for node in self.nodes)

    @property
    def parameters(self) -> int:
        """Bytes of the constants that the file holds."""
        made = {name for node in self.nodes if node.operator != "Constant" for name in node.gives}
        return sum(item.size for item in self.tensors.values() if item.constant and item.name not in made)

    @property
    def operators(self) -> dict[str, int]:
        """How many nodes of each operator there are, by name."""
        names = sorted({node.operator for node in self.nodes})
        return {name: sum(node.operator == name for node in self.nodes) for name in names}


def one_row(model: Model, sizes: Mapping[str, int] | None = None) -> tuple[Tensors, tuple[str, ...]]:
    """A row of zeros that fits the signature, and what had to be assumed: unknown dimensions are 1.

    `sizes` gives the size of the unknown dimensions of an input, by its name.
    """
    rows, notes = {}, []
    for spec in model.signature.inputs:
        guess = (sizes or {}).get(spec.name, 1)
        first = tuple(1 if size == DYNAMIC else size for size in spec.shape[:1])
        shape = (*first, *(guess if size == DYNAMIC else size for size in spec.shape[1:]))
        if DYNAMIC in spec.shape[1:]:
            shown = ", ".join("?" if size == DYNAMIC else str(size) for size in spec.shape[1:])
            notes.append(f"input {spec.name!r} is [N, {shown}]: unknown dimensions are taken as {guess}")
        rows[spec.name] = (
            np.full(shape, "", object) if spec.datatype == "BYTES" else np.zeros(shape, spec.dtype)
        )
    return rows, tuple(notes)


def graph_facts(model: Model, rows: Tensors | None = None) -> GraphFacts:
    """The facts of a graph for these rows, or for one row of zeros; exact, because the graph is run once.

    Where it cannot be run on them, shapes come from inference and what is not known counts as nothing, with
    a note that says so. Nodes inside control flow (If, Loop, Scan) are not counted, and named in a note.
    """
    notes: list[str] = []
    if rows is None:
        rows, assumed = one_row(model)
        notes.extend(assumed)
    proto = parse(model)
    tensors = _tensors(model, proto, rows, notes)
    meant = meant_int8(proto)
    nodes = []
    for index, node in enumerate(proto.graph.node):
        reads = tuple(name for name in node.input if name)
        gives = tuple(name for name in node.output if name)
        shapes = {name: tensors[name].shape for name in (*reads, *gives) if name in tensors}
        constants = sum(tensors[name].size for name in reads if name in tensors and tensors[name].constant)
        moved = sum(tensors[name].size for name in {*reads, *gives} if name in tensors)
        name = label(node, index)
        count = macs(node, shapes)
        nodes.append(
            NodeFact(index, name, node.op_type, reads, gives, count, constants, moved, index in meant)
        )
    inner = sorted({node.op_type for node in proto.graph.node if node.op_type in ("If", "Loop", "Scan")})
    if inner:
        notes.append(f"nodes inside {', '.join(inner)} are not counted")
    return GraphFacts(
        tuple(nodes), tensors, tuple(item.name for item in proto.graph.input),
        tuple(item.name for item in proto.graph.output), model.size, tuple(notes),
    )  # fmt: skip


def _tensors(model: Model, proto: Any, rows: Tensors, notes: list[str]) -> dict[str, TensorFact]:
    import onnx

    found = {
        item.name: TensorFact(item.name, tuple(item.dims), _size(item.data_type, tuple(item.dims)), True)
        for item in proto.graph.initializer
    }
    for name, values in rows.items():
        found[name] = TensorFact(name, values.shape, values.nbytes, False)
    fixed = {name for name in found if name not in rows}
    try:
        seen = intermediate(model, rows)
        shapes = {
            name: (values.shape, values.nbytes) for name, values in seen.items() if hasattr(values, "shape")
        }
    except Exception as error:  # The engine's refusal of a row of zeros is no reason to show nothing.
        told = str(error).strip().splitlines() or [type(error).__name__]
        notes.append(f"the graph could not be run on the row ({told[0][:120]}): shapes are inferred")
        inferred = onnx.shape_inference.infer_shapes(proto, data_prop=True).graph
        shapes = {}
        for item in (*inferred.value_info, *inferred.output):
            kind = item.type.tensor_type
            shape = tuple(dim.dim_value or 1 for dim in kind.shape.dim)
            shapes[item.name] = (shape, _size(kind.elem_type, shape))
    for node in proto.graph.node:
        reads = [name for name in node.input if name]
        still = node.op_type == "Constant" or (bool(reads) and all(name in fixed for name in reads))
        fixed.update(node.output if still else ())
        for name in node.output:
            if name and name in shapes:
                # A dequantized constant lives in its small form; the float one is the engine's affair.
                small = still and node.op_type == "DequantizeLinear" and node.input[0] in found
                size = found[node.input[0]].size if small else shapes[name][1]
                found[name] = TensorFact(name, shapes[name][0], size, still)
    return found


def _size(kind: int, shape: Shape) -> int:
    """Bytes of a tensor of an ONNX element type; four-bit types take half a byte."""
    import onnx

    count = math.prod(shape)
    if kind in (onnx.TensorProto.UINT4, onnx.TensorProto.INT4):
        return (count + 1) // 2
    try:
        return int(count * onnx.helper.tensor_dtype_to_np_dtype(kind).itemsize)
    except (KeyError, TypeError, ValueError):
        return 0
