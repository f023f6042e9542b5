"""Which few layers to leave in float: those whose quantization alone moves the answers most."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from modelyard.compress import graph_file as gf
from modelyard.core.errors import CompressError, ModelError
from modelyard.core.spec import Tensors
from modelyard.model.onnx_runtime import OnnxRuntime
from modelyard.model.predict import predict

if TYPE_CHECKING:
    from modelyard.model.model import Model

Quantize: TypeAlias = Callable[[tuple[str, ...] | None, tuple[str, ...]], bytes]
"""A graph with only these nodes quantized (all for `None`) but for those, as bytes."""

_ROWS = 128
_LEAST_GAIN = 0.05
ENOUGH = 0.002
"""An error of this share of the answers' spread is left as it is."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The nodes that stay float, and what was measured."""

    floats: tuple[str, ...]
    notes: tuple[str, ...]


def leave_in_float(model: Model, prepared: Any, rows: Tensors, quantize: Quantize, most: float) -> Choice:
    """Chooses greedily at most `most` of the weighted layers (at least one may go) to stay float.

    Each layer is quantized alone and the root mean square change of the answers on calibration rows taken;
    then layers are given back in that order, worst first, each kept float only where the error of all the
    others together falls by 5 % or more, until little error is left (compare HAWQ, Dong et al. 2019,
    arXiv:1905.03696, which ranks by curvature; here the error itself is measured).
    """
    weighted = {
        node.name: node.output[0]
        for node in prepared.graph.node
        if node.op_type in gf.WEIGHTED and any(name == node.input[1] for name in _constants(prepared))
    }
    few = {name: values[:_ROWS] for name, values in rows.items()}
    expected = _answers(model, few)
    spread = float(np.ptp(expected)) or 1.0

    def error(only: tuple[str, ...] | None, but: tuple[str, ...] = ()) -> float:
        found = _answers(gf.reread(quantize(only, but), model), few)
        return float(np.sqrt(np.mean(np.square(found - expected)))) / spread

    alone = {name: error((name,)) for name in weighted}
    whole = left = error(None)
    floats: tuple[str, ...] = ()
    budget = max(1, int(most * len(weighted)))
    for name in sorted(alone, key=lambda name: -alone[name]):
        if len(floats) == budget or left <= ENOUGH or len(floats) == len(weighted) - 1:
            break
        tried = error(None, (*floats, name))
        if tried <= (1 - _LEAST_GAIN) * left:
            floats, left = (*floats, name), tried
    kept = ", ".join(f"{weighted[name]!r} (alone {alone[name]:.2g})" for name in floats)
    return Choice(
        floats,
        (
            f"float by sensitivity: {kept or 'none'}",
            f"answers move by {left:.2g} of their spread (RMS); {whole:.2g} with everything in int8",
        ),
    )


def _constants(proto: Any) -> set[str]:
    return {item.name for item in proto.graph.initializer}


def _answers(model: Model, rows: Tensors) -> Any:
    try:
        session = OnnxRuntime().load(model)
        found = predict(session, rows).astype(np.float64)
        session.close()
    except ModelError as error:
        raise CompressError("a partly quantized graph cannot run", value=str(error)[:300]) from error
    return found
