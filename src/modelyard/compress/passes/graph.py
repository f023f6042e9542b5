"""Simplifies the graph: constants folded, batch norm fused, duplicates and dead nodes gone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from modelyard.compress.graph_file import changes, operators, optimized, parse, require_weights, reread
from modelyard.compress.pass_protocol import Compressed
from modelyard.core.errors import CompressError
from modelyard.core.spec import Tensors

if TYPE_CHECKING:
    from modelyard.model.model import Model

_STANDARD = ("", "ai.onnx", "ai.onnx.ml")


@dataclass(frozen=True, slots=True)
class GraphPass:
    """onnxruntime's basic rewrites, written back as standard operators.

    onnxruntime does the same when it loads a graph, so on it this rarely makes answers faster; the file
    gets smaller, and every other engine gets the simpler graph.
    """

    name: str = "graph"

    def apply(self, model: Model, calibration: Tensors) -> Compressed:
        """The simplified model; `CompressError` when there is nothing to simplify."""
        before = parse(model)
        require_weights(before)
        after = optimized(before)
        known = {node.domain for node in before.graph.node}
        foreign = {node.op_type for node in after.graph.node if node.domain not in {*_STANDARD, *known}}
        if foreign:
            raise CompressError("the rewrites left the standard operators", value=sorted(foreign))
        counts = operators(before), operators(after)
        weights = len(before.graph.initializer), len(after.graph.initializer)
        if counts[0] == counts[1] and weights[1] >= weights[0]:
            raise CompressError("does not apply: nothing to simplify")
        found = reread(after.SerializeToString(), model)
        notes = (*changes(*counts), f"constants {weights[0]} -> {weights[1]}")
        return Compressed(found, notes)
