"""The ranges of a graph's activations on real rows: by extremes, by entropy, or by percentile."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from modelyard.core.errors import CompressError
from modelyard.core.spec import Tensors

Array = npt.NDArray[Any]
Range: TypeAlias = tuple[float, float]

BATCH = 32
BINS = 2048
_LEVELS = 128
_STRIDE = 16


def ranges(
    proto: Any, kinds: tuple[str, ...], rows: Tensors, method: str, percentile: float
) -> dict[str, Range]:
    """The range of every float tensor beside a node of those kinds, from one or two runs over the rows.

    Rows go through in small batches and only extremes or histograms are kept, so memory does not grow with
    their number. `method` is "minmax", "entropy" or "percentile". Raises `CompressError` when the graph
    cannot run, or a tensor is never finite.
    """
    session, names = _watching(proto, kinds)
    extremes: dict[str, Range] = {}
    for values in _runs(session, names, rows):
        for name, array in values.items():
            low, high = float(array.min()), float(array.max())
            known = extremes.get(name, (low, high))
            extremes[name] = min(low, known[0]), max(high, known[1])
    broken = [name for name, found in extremes.items() if not np.isfinite(found).all()]
    if broken:
        raise CompressError(
            "an activation is not finite on the calibration rows",
            value=broken[:3],
            fix="look at the model's inputs",
        )
    if method == "minmax":
        return extremes
    counts: dict[str, Array] = {name: np.zeros(BINS) for name in extremes}
    for values in _runs(session, names, rows):
        for name, array in values.items():
            low, high = _span(extremes[name], method)
            found = np.abs(array) if method == "entropy" else array
            counts[name] += np.histogram(found, bins=BINS, range=(low, high))[0]
    if method == "percentile":
        return {name: percentile_range(counts[name], extremes[name], percentile) for name in extremes}
    found_ranges = {}
    for name, span in extremes.items():
        # A tensor without negative values has all 256 levels for its magnitudes.
        levels = 2 * _LEVELS if span[0] >= 0 or span[1] <= 0 else _LEVELS
        found_ranges[name] = _within(span, entropy_threshold(counts[name], _reach(span), levels=levels))
    return found_ranges


def percentile_range(counts: Array, span: Range, percentile: float) -> Range:
    """The range that holds the middle `percentile` of the values counted evenly over `span`.

    What is cut is shared by both sides; a side at which zero lies stays at zero.
    """
    low, high = span
    if high <= low:
        return span
    edges = np.linspace(low, high, len(counts) + 1)
    share = np.cumsum(counts) / counts.sum()
    cut = (100.0 - percentile) / 200.0
    left = edges[int(np.searchsorted(share, cut, side="right"))] if low < 0 else low
    right = edges[min(int(np.searchsorted(share, 1.0 - cut)) + 1, len(counts))] if high > 0 else high
    return float(min(left, 0.0)), float(max(right, 0.0))


def entropy_threshold(counts: Array, reach: float, *, levels: int = _LEVELS) -> float:
    """The clipping threshold for magnitudes counted over [0, reach] that loses the least information.

    Minimises the Kullback-Leibler divergence between the clipped histogram and its form in `levels` steps
    (Migacz, "8-bit Inference with TensorRT", GTC 2017), over every 16th of the bins. The whole reach where
    nothing is counted. The first bin counts as its neighbour: zeros, which every range holds exactly, would
    outweigh everything else.
    """
    bins = len(counts)
    counts = np.concatenate([counts[1:2], counts[1:]])
    best, threshold = np.inf, reach
    if counts.sum() == 0 or reach == 0:
        return reach
    for end in range(levels, bins + 1, _STRIDE):
        clipped = counts[:end].astype(np.float64)
        reference = clipped.copy()
        reference[-1] += counts[end:].sum()
        # Each level spreads what it holds evenly over its bins that are not empty.
        level = np.arange(end) * levels // end
        used = clipped > 0
        held = np.bincount(level, weights=clipped, minlength=levels)
        size = np.bincount(level, weights=used, minlength=levels)
        spread = np.where(used, held[level] / np.maximum(size[level], 1), 0.0)
        divergence = _divergence(reference, spread)
        if divergence < best:
            best, threshold = divergence, reach * end / bins
    return threshold


def _divergence(reference: Array, spread: Array) -> float:
    """KL divergence with a little weight moved to bins that only the reference fills."""
    p, q = reference / reference.sum(), spread / max(spread.sum(), 1e-300)
    lost = (p > 0) & (q == 0)
    if lost.any():
        q = (q + 1e-4 / len(q)) / (1 + 1e-4)
    some = p > 0
    return float(np.sum(p[some] * np.log(p[some] / q[some])))


def _span(span: Range, method: str) -> Range:
    low, high = (0.0, _reach(span)) if method == "entropy" else span
    return (low, high) if high > low else (low, low + 1.0)


def _reach(span: Range) -> float:
    return max(abs(span[0]), abs(span[1]))


def _within(span: Range, threshold: float) -> Range:
    return max(span[0], -threshold), min(span[1], threshold)


def _watching(proto: Any, kinds: tuple[str, ...]) -> tuple[Any, list[str]]:
    """A session whose outputs are the float tensors beside those nodes, and their names."""
    import onnx
    import onnxruntime

    float32 = onnx.TensorProto.FLOAT
    known = {
        item.name
        for item in (*proto.graph.input, *proto.graph.value_info, *proto.graph.output)
        if item.type.tensor_type.elem_type == float32
    }
    beside: dict[str, None] = {}
    for node in proto.graph.node:
        if node.op_type in kinds:
            beside.update(dict.fromkeys(name for name in (*node.input, *node.output) if name in known))
    copy = onnx.ModelProto.FromString(proto.SerializeToString())
    del copy.graph.output[:]
    copy.graph.output.extend(onnx.helper.make_tensor_value_info(name, float32, None) for name in beside)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    # Fusions would keep a tensor of the middle from being made.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = onnxruntime.InferenceSession(
            copy.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # onnxruntime raises classes of its own that share no root.
        raise CompressError("the graph cannot be run for calibration", value=str(error)[:300]) from error
    return session, list(beside)


def _runs(session: Any, names: list[str], rows: Tensors) -> Iterator[Mapping[str, Array]]:
    count = len(next(iter(rows.values())))
    for start in range(0, count, BATCH):
        batch = {name: values[start : start + BATCH] for name, values in rows.items()}
        try:
            found = session.run(names, batch)
        except Exception as error:  # onnxruntime raises classes of its own that share no root.
            raise CompressError(
                "the graph cannot run on the calibration rows", value=str(error)[:300]
            ) from error
        yield {name: array for name, array in zip(names, found, strict=True) if array.size}
