"""The way to tools that want files: a private folder that lives as long as one call, and their silence."""

from __future__ import annotations

import logging
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelyard.core.errors import CompressError
from modelyard.core.spec import Tensors
from modelyard.model.reader import read_model

if TYPE_CHECKING:
    from modelyard.model.model import Model

WEIGHTED = ("Conv", "Gemm", "MatMul")
"""The operators that int8 arithmetic can speed up."""

_LEVEL_FATAL = 4
_PREPARED = ("onnx.quant.pre_process", "onnxruntime.quant")


def operators(proto: Any) -> Counter[str]:
    """How many nodes of each operator the main graph has."""
    return Counter(node.op_type for node in proto.graph.node)


def parse(model: Model) -> Any:
    """The model's graph as an `onnx.ModelProto` of its own, free to be changed."""
    import onnx

    return onnx.ModelProto.FromString(model.onnx)


def require_weights(proto: Any, kinds: tuple[str, ...] = WEIGHTED) -> None:
    """Raises `CompressError` unless a node of these operators has constant weights."""
    constant = {item.name for item in proto.graph.initializer}
    constant |= {name for node in proto.graph.node if node.op_type == "Constant" for name in node.output}
    present = [node for node in proto.graph.node if node.op_type in kinds]
    named = ", ".join(kinds[:-1]) + f" or {kinds[-1]}"
    if not present:
        raise CompressError(f"does not apply: no {named}")
    if not any(name in constant for node in present for name in node.input[1:2]):
        raise CompressError(f"does not apply: no {named} with constant weights")


def optimized(proto: Any) -> Any:
    """The graph after onnxruntime's basic rewrites: constants folded, batch norm fused, dead nodes gone.

    Only rewrites that stay within standard operators and tie the graph to no machine. Raises `CompressError`
    when onnxruntime cannot load the graph.
    """
    import onnx
    import onnxruntime

    with private_folder() as folder:
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(folder / "optimized.onnx")
        options.log_severity_level = _LEVEL_FATAL
        options.intra_op_num_threads = 1
        try:
            onnxruntime.InferenceSession(
                proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
            found = onnx.ModelProto.FromString((folder / "optimized.onnx").read_bytes())
        except Exception as error:  # onnxruntime raises classes of its own that share no root.
            raise CompressError("onnxruntime cannot rewrite the graph", value=str(error)[:300]) from error
    drop_dead(found.graph)
    return found


def drop_dead(graph: Any) -> None:
    """Takes out, in place, nodes whose outputs nobody reads and constants that no node uses.

    onnxruntime keeps both in the file that it writes.
    """
    needed = {item.name for item in graph.output}
    alive = []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            alive.append(node)
            needed |= set(reads(node))
    constants = [item for item in graph.initializer if item.name in needed]
    del graph.node[:]
    graph.node.extend(reversed(alive))
    del graph.initializer[:]
    graph.initializer.extend(constants)


def reads(node: Any) -> Iterator[str]:
    """Every name that a node reads, as often as it does, those that its inner graphs may take from outside
    included."""
    yield from node.input
    for attribute in node.attribute:
        for graph in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
            yield from (item.name for item in graph.output)
            for inner in graph.node:
                yield from reads(inner)


def opset(proto: Any) -> int:
    """The version of the standard operators that a graph is written in."""
    return max((item.version for item in proto.opset_import if item.domain in ("", "ai.onnx")), default=1)


def sort_nodes(graph: Any) -> None:
    """Puts the nodes, in place, into an order in which each comes after what it reads, inner graphs included.

    Nodes that were in order stay as they were.
    """
    made = {name for node in graph.node for name in node.output}
    ready: set[str] = set()
    waiting = [type(node).FromString(node.SerializeToString()) for node in graph.node]
    ordered = []
    while waiting:
        left = []
        for node in waiting:
            if all(name in ready for name in reads(node) if name in made):
                ordered.append(node)
                ready |= set(node.output)
            else:
                left.append(node)
        if len(left) == len(waiting):
            raise CompressError("the graph's nodes wait for each other", value=left[0].name)
        waiting = left
    del graph.node[:]
    graph.node.extend(ordered)


def prepared(proto: Any) -> Any:
    """The graph as onnxruntime's quantizer wants it: rewritten, without stale shapes, marked as prepared."""
    found = optimized(proto)
    _plain_gemms(found.graph)
    # A shape left over from an exporter that disagrees with inference makes the quantizer fail.
    del found.graph.value_info[:]
    mark = found.metadata_props.add()
    mark.key, mark.value = _PREPARED
    return found


def odd_products(proto: Any) -> list[str]:
    """The names of MatMul nodes that onnxruntime quantizes into what it cannot run.

    Those with a constant of more or fewer than two axes, or with the constant on the left.
    """
    ranks = {item.name: len(item.dims) for item in proto.graph.initializer}
    return [
        node.name
        for node in proto.graph.node
        if node.op_type == "MatMul" and (node.input[0] in ranks or ranks.get(node.input[1], 2) != 2)
    ]


def _plain_gemms(graph: Any) -> None:
    """Makes alpha and beta part of each Gemm's constants, and its bias one number an output.

    The quantizer scales a bias as if both were one, and looks in it for each channel's number.
    """
    import onnx

    constants = {item.name: onnx.numpy_helper.to_array(item) for item in graph.initializer}
    for node in graph.node:
        if node.op_type != "Gemm" or node.input[1] not in constants:
            continue
        given = {item.name: item for item in node.attribute}
        alpha, beta = (given[name].f if name in given else 1.0 for name in ("alpha", "beta"))
        weight = constants[node.input[1]]
        columns = weight.shape[0 if "transB" in given and given["transB"].i else 1]
        bias = constants.get(node.input[2]) if len(node.input) > 2 else None
        if beta == 0:
            del node.input[2:]
        elif bias is not None and (beta != 1 or bias.shape != (columns,)) and bias.size in (1, columns):
            whole = (beta * bias.ravel().repeat(columns // bias.size)).astype(bias.dtype)
            node.input[2] = _added(graph, f"{node.output[0]}_plain_bias", whole)
        elif beta != 1:
            continue
        if alpha != 1:
            node.input[1] = _added(
                graph, f"{node.output[0]}_plain_weight", (alpha * weight).astype(weight.dtype)
            )
        for name in ("alpha", "beta"):
            if name in given:
                given[name].f = 1.0
    drop_dead(graph)


def _added(graph: Any, name: str, values: Any) -> str:
    import onnx

    graph.initializer.append(onnx.numpy_helper.from_array(values, name))
    return name


def reread(data: bytes, original: Model) -> Model:
    """The new bytes through the strict reader, with the original's task and labels and the same signature."""
    found = read_model(data, task=original.task, labels=original.labels)
    if found.signature != original.signature:
        raise CompressError(
            "the pass changed the model's signature",
            value=found.signature.to_json(),
            rule=str(original.signature.to_json()),
        )
    return found


def usable_rows(model: Model, calibration: Tensors, fewest: int) -> tuple[Tensors, int]:
    """Calibration rows whose numbers are all finite, and how many were left out for not being so.

    Raises `CompressError` when the rows do not fit the model's signature or fewer than `fewest` are left.
    """
    import numpy as np

    specs = {spec.name: spec for spec in model.signature.inputs}
    if set(calibration) != set(specs):
        raise CompressError(
            "the calibration rows do not fit the model", value=sorted(calibration), rule=str(sorted(specs))
        )
    rows = len(next(iter(calibration.values())))
    finite = np.ones(rows, dtype=np.bool_)
    for name, spec in specs.items():
        values = calibration[name]
        if values.dtype != spec.dtype or not spec.accepts(values.shape) or len(values) != rows:
            raise CompressError(
                f"the calibration rows do not fit input {name!r}",
                value=f"{values.dtype} {list(values.shape)}",
                rule=f"{spec.dtype} {list(spec.shape)}, {rows} rows in all",
            )
        if values.dtype.kind == "f" and rows:
            finite &= np.isfinite(values).reshape(rows, -1).all(axis=1)
    kept = int(finite.sum())
    if kept < fewest:
        raise CompressError(
            "too few rows to calibrate with", value=kept, rule=f"at least {fewest} rows of finite numbers"
        )
    return {name: values[finite] for name, values in calibration.items()}, rows - kept


@contextmanager
def private_folder() -> Iterator[Path]:
    """A folder that only this user can read, gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="modelyard-compress-") as name:
        yield Path(name)


@contextmanager
def silence() -> Iterator[None]:
    """Keeps the quantizer's words, which it writes to the root logger, from the user's terminal and logs."""

    def foreign(record: logging.LogRecord) -> bool:
        return "quantization" not in Path(record.pathname).parts

    root = logging.getLogger()
    # Without any handler the first word would install one on the root logger for good.
    placeholder = logging.NullHandler()
    root.addHandler(placeholder)
    root.addFilter(foreign)
    try:
        yield
    finally:
        root.removeFilter(foreign)
        root.removeHandler(placeholder)


def changes(before: Counter[str], after: Counter[str]) -> tuple[str, ...]:
    """What became of the operators, in words.

    >>> changes(Counter(Conv=2, BatchNormalization=2, Relu=1), Counter(Conv=2, Relu=1))
    ('5 nodes became 3', 'BatchNormalization 2 -> 0')
    """
    names = sorted(name for name in before | after if before[name] != after[name])
    return (
        f"{before.total()} nodes became {after.total()}",
        *(f"{name} {before[name]} -> {after[name]}" for name in names),
    )
