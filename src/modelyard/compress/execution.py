"""What an engine really ran: its operators, the graph's nodes behind them, their time, and which are int8."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from modelyard.compress.graph_file import parse, private_folder
from modelyard.core.errors import ModelError
from modelyard.core.spec import Tensors

if TYPE_CHECKING:
    from modelyard.model.model import Model

INT8_OPERATORS = frozenset(
    {
        "ConvInteger", "DynamicQuantizeLSTM", "DynamicQuantizeMatMul", "MatMulInteger",
        "MatMulIntegerToFloat", "QAttention", "QGemm", "QLinearConv", "QLinearMatMul",
    }
)  # fmt: skip
"""onnxruntime's products in eight-bit integers."""
_PRODUCTS = frozenset({"Convolution", "FullyConnected", "MatMul", "Gemm", "GroupConvolution"})
_QDQ = ("Conv", "Gemm", "MatMul")
_MARK = re.compile(r"<\w+:(\d+)>")
_WARM = 2
_FAMILIES = {
    "Convolution": "Conv", "ConvInteger": "Conv", "FusedConv": "Conv", "QLinearConv": "Conv",
    "DynamicQuantizeMatMul": "Gemm/MatMul", "FullyConnected": "Gemm/MatMul", "FusedGemm": "Gemm/MatMul",
    "FusedMatMul": "Gemm/MatMul", "Gemm": "Gemm/MatMul", "MatMul": "Gemm/MatMul",
    "MatMulInteger": "Gemm/MatMul", "MatMulIntegerToFloat": "Gemm/MatMul", "MatMulNBits": "Gemm/MatMul",
    "QGemm": "Gemm/MatMul", "QLinearMatMul": "Gemm/MatMul",
    "NhwcMaxPool": "MaxPool", "Reorder": "layout", "ReorderInput": "layout", "ReorderOutput": "layout",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class OperatorRun:
    """One operator as the engine ran it, `seconds` a run (without the slowest quarter of its runs).

    `operator` is the engine's own word, `node` the graph's node it came from (`index` its place there), as
    far as the engine tells. onnxruntime's bookkeeping adds microseconds to each operator; what the sum of all
    exceeds an undisturbed run by is taken off in equal parts.
    """

    operator: str
    node: str
    index: int | None
    seconds: float
    int8: bool

    @property
    def family(self) -> str:
        """The operator that it stands for, whatever the engine made of it: QLinearConv is a Conv."""
        return _FAMILIES.get(self.operator, self.operator.removeprefix("QLinear"))

    def to_json(self) -> dict[str, Any]:
        return {
            "operator": self.operator,
            "node": self.node,
            "index": self.index,
            "seconds": self.seconds,
            "int8": self.int8,
        }


@dataclass(frozen=True, slots=True)
class Shift:
    """The time of one family of operators in the original and in the candidate, in seconds a run."""

    family: str
    before: float
    after: float

    @property
    def lost(self) -> float:
        return self.after - self.before

    def __str__(self) -> str:
        if self.before == 0:
            return f"{self.family} +{self.after * 1e6:.0f} µs (new)"
        return f"{self.family} {self.before * 1e6:.0f} -> {self.after * 1e6:.0f} µs"

    def to_json(self) -> dict[str, Any]:
        return {"operator": self.family, "before": self.before, "after": self.after}


def operator_runs(
    model: Model, rows: Tensors, *, runtime: str = "onnxruntime", repeats: int = 20
) -> tuple[OperatorRun, ...] | None:
    """Every operator that the engine runs for these rows, in its order; `None` when the engine does not tell.

    Raises `ModelError` when the model cannot be loaded or run.
    """
    if repeats < 1:
        raise ValueError(f"at least one repeat, got {repeats}")
    if runtime == "onnxruntime":
        return _of_onnxruntime(model, rows, repeats)
    if runtime == "openvino":
        return _of_openvino(model, rows, repeats)
    return None


def label(node: Any, index: int) -> str:
    """A node's name for people: its own, else its operator and what it gives."""
    return str(node.name) or f"{node.op_type} {node.output[0] if node.output else index}"


def meant_int8(proto: Any) -> dict[int, str]:
    """The nodes, by place, that the graph wants computed in int8: products of two dequantized tensors, or
    operators that are integer ones by name. Weights that are stored small and used in float are not meant.
    """
    makers = {name: node for node in proto.graph.node for name in node.output}

    def dequantized(name: str) -> bool:
        node = makers.get(name)
        while node is not None and node.op_type in ("Transpose", "Reshape", "Squeeze", "Unsqueeze"):
            node = makers.get(node.input[0])
        return node is not None and node.op_type == "DequantizeLinear"

    found = {}
    for index, node in enumerate(proto.graph.node):
        pair = node.op_type in _QDQ and len(node.input) > 1 and all(map(dequantized, node.input[:2]))
        if pair or node.op_type in INT8_OPERATORS:
            found[index] = label(node, index)
    return found


def ran_as_meant(
    meant: Mapping[int, str], runs: Iterable[OperatorRun]
) -> tuple[tuple[str, ...], tuple[OperatorRun, ...]]:
    """The meant nodes that did not run in int8, by name, and the operators that did.

    An int8 operator whose node the engine does not tell stands for one meant node that is not seen.
    """
    ran = tuple(run for run in runs if run.int8)
    unseen = [index for index in meant if index not in {run.index for run in ran}]
    nameless = sum(run.index is None or run.index not in meant for run in ran)
    return tuple(meant[index] for index in unseen[nameless:]), ran


def shifts(before: Iterable[OperatorRun], after: Iterable[OperatorRun]) -> tuple[Shift, ...]:
    """The time by family in both, what lost most first.

    >>> one = OperatorRun("Conv", "c", 0, 30e-6, False)
    >>> two = OperatorRun("QLinearConv", "c", 0, 20e-6, True)
    >>> new = OperatorRun("QuantizeLinear", "q", None, 15e-6, False)
    >>> [str(item) for item in shifts([one], [two, new])]
    ['QuantizeLinear +15 µs (new)', 'Conv 30 -> 20 µs']
    """
    was, now = _by_family(before), _by_family(after)
    found = [Shift(name, was.get(name, 0.0), now.get(name, 0.0)) for name in sorted(was | now)]
    return tuple(sorted(found, key=lambda item: -item.lost))


def _by_family(runs: Iterable[OperatorRun]) -> dict[str, float]:
    total: dict[str, float] = {}
    for run in runs:
        total[run.family] = total.get(run.family, 0.0) + run.seconds
    return total


def _of_onnxruntime(model: Model, rows: Tensors, repeats: int) -> tuple[OperatorRun, ...]:
    import onnxruntime

    proto = parse(model)
    nodes = list(proto.graph.node)
    makers = {name: index for index, node in enumerate(nodes) for name in node.output}
    labels = [label(node, index) for index, node in enumerate(nodes)]
    for index, node in enumerate(nodes):
        node.name = f"<{node.op_type}:{index}>"
    with private_folder() as folder:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 4
        options.enable_profiling = True
        options.profile_file_prefix = str(folder / "profile")
        try:
            engine = onnxruntime.InferenceSession(
                proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
            for _ in range(repeats + _WARM):
                engine.run(None, rows)
            events = json.loads((folder / engine.end_profiling()).read_bytes())
            undisturbed = _undisturbed(engine, rows, repeats)
        except Exception as error:  # onnxruntime raises classes of its own that share no root.
            raise ModelError("onnxruntime cannot run the model", value=str(error)[:300]) from error
    found: dict[tuple[str, str], list[float]] = {}
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            name = event["name"].removesuffix("_kernel_time")
            found.setdefault((name, event["args"]["op_name"]), []).append(event["dur"] * 1e-6)
    typical = {key: _typical(taken) for key, taken in found.items()}
    excess = max(0.0, sum(typical.values()) - undisturbed) / max(1, len(typical))
    runs = []
    for (name, operator), seconds in typical.items():
        place = _index(name, makers)
        told = labels[place] if place is not None else ""
        own = max(seconds - excess, 1e-7)
        runs.append(OperatorRun(operator, told, place, own, operator in INT8_OPERATORS))
    return tuple(runs)


def _undisturbed(engine: Any, rows: Tensors, repeats: int) -> float:
    """The seconds of a run when nothing is written down."""
    taken = []
    for _ in range(repeats + _WARM):
        start = time.perf_counter()
        engine.run(None, rows)
        taken.append(time.perf_counter() - start)
    return _typical(taken)


def _index(name: str, makers: Mapping[str, int]) -> int | None:
    """The node behind an engine's name: our mark survives most rewrites, else the output's name does."""
    marked = _MARK.search(name)
    if marked:
        return int(marked[1])
    return makers.get(name.removesuffix("_nchwc"))


def _of_openvino(model: Model, rows: Tensors, repeats: int) -> tuple[OperatorRun, ...]:
    from modelyard.model.openvino_runtime import compiled, without_text
    from modelyard.model.runtime import DEFAULT_OPTIONS

    onnx, _ = without_text(model)
    makers = {name: index for index, node in enumerate(parse(model).graph.node) for name in node.output}
    request = compiled(onnx, DEFAULT_OPTIONS, counting=True).create_infer_request()
    given = {name: values for name, values in rows.items() if values.dtype != object}
    found: dict[tuple[str, str, str], list[float]] = {}
    for _ in range(repeats + _WARM):
        request.infer(given)
        for item in request.profiling_info:
            if str(item.status).endswith("EXECUTED"):
                key = (item.node_name, item.node_type, item.exec_type)
                found.setdefault(key, []).append(item.real_time.total_seconds())
    runs = []
    for (name, kind, how), taken in found.items():
        index, int8 = makers.get(name.partition("/")[0]), how.endswith("I8") and kind in _PRODUCTS
        runs.append(OperatorRun(kind, name, index, _typical(taken), int8))
    return tuple(runs)


def _typical(taken: list[float]) -> float:
    """The mean without the first, cold runs and without the slowest quarter."""
    warm = np.sort(taken[_WARM:] or taken)
    return float(warm[: max(1, (3 * len(warm) + 3) // 4)].mean())
