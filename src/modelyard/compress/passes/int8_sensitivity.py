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
    then the worst, the two worst and so on are given back while the error of all others together falls by
    5 % or more a layer, until little error is left; at last those whose return was not needed become int8
    again (compare HAWQ, Dong et al. 2019, arXiv:1905.03696, which ranks by curvature; here the error itself
    is measured).
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
    budget = min(max(1, int(most * len(weighted))), len(weighted) - 1)
    worst = sorted(alone, key=lambda name: -alone[name])
    for count in range(1, budget + 1):
        if left <= ENOUGH:
            break
        # A tensor between two layers stays int8 until both are float: neither alone would show a gain.
        tried = error(None, tuple(worst[:count]))
        if tried <= (1 - _LEAST_GAIN) ** count * left:
            floats, left = tuple(worst[:count]), tried
    for name in floats if len(floats) > 1 else ():
        without = tuple(other for other in floats if other != name)
        tried = error(None, without)
        if without and tried <= max(left * (1 + _LEAST_GAIN), ENOUGH):
            floats, left = without, tried
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
