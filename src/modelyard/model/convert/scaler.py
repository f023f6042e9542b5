"""StandardScaler to the last bit, because a tree after it may split exactly on a scaled value."""

from __future__ import annotations

import functools
from typing import Any

from modelyard.core.require import require

_FLOAT = 1


@functools.cache
def register_scaler() -> None:
    """Replaces skl2onnx's converter of StandardScaler for float32 input, once a process.

    scikit-learn subtracts the mean and divides by the scale in float32; onnx's Scaler multiplies by the
    scale's inverse, one unit in the last place away, which sends rows the wrong way where a boosted tree's
    threshold is a value of the training data.
    """
    skl2onnx = require("skl2onnx", extra="train")
    scaler = require("sklearn.preprocessing", extra="train").StandardScaler
    registry = require("skl2onnx.common._registration", extra="train")
    types = require("skl2onnx.common.data_types", extra="train")
    alias = require("skl2onnx._supported_operators", extra="train").sklearn_operator_name_map[scaler]
    original = registry.get_converter(alias)
    shapes = registry.get_shape_calculator(alias)

    def converter(scope: Any, operator: Any, container: Any) -> None:
        fitted = operator.raw_operator
        if len(operator.inputs) != 1 or not isinstance(operator.inputs[0].type, types.FloatTensorType):
            original(scope, operator, container)
            return
        last = operator.inputs[0].full_name
        steps = [("Sub", fitted.mean_ if fitted.with_mean else None), ("Div", fitted.scale_)]
        for kind, values in steps:
            if values is not None:
                last = _step(scope, container, kind, last, values)
        container.add_node(
            "Identity", [last], operator.outputs[0].full_name, name=scope.get_unique_operator_name("Identity")
        )

    skl2onnx.update_registered_converter(
        scaler, "ModelyardStandardScaler", shapes, converter, options=original.get_allowed_options()
    )


def _step(scope: Any, container: Any, kind: str, last: str, values: Any) -> str:
    constant = scope.get_unique_variable_name("scaler_constant")
    container.add_initializer(constant, _FLOAT, [1, len(values)], [float(value) for value in values])
    made: str = scope.get_unique_variable_name("scaled")
    container.add_node(kind, [last, constant], made, name=scope.get_unique_operator_name(kind))
    return made
