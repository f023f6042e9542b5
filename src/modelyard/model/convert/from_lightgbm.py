"""LightGBM's scikit-learn estimators as skl2onnx sees them, with thresholds that float32 cannot cross."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from typing import Any

from modelyard.core.errors import ConversionError
from modelyard.core.require import require
from modelyard.model.convert.splits import Split, set_splits


def register_lightgbm() -> None:
    """Teaches skl2onnx LightGBM's classifier and regressor; does nothing while LightGBM is not loaded."""
    if "lightgbm" not in sys.modules:
        return
    lightgbm = require("lightgbm", extra="train")
    skl2onnx = require("skl2onnx", extra="train")
    shapes = require("skl2onnx.common.shape_calculator", extra="train")
    with warnings.catch_warnings():
        # onnxmltools warns of the other libraries that it could convert and that are not installed.
        warnings.simplefilter("ignore")
        original = require(
            "onnxmltools.convert.lightgbm.operator_converters.LightGbm", extra="train"
        ).convert_lightgbm

    def converter(scope: Any, operator: Any, container: Any) -> None:
        before = len(container.nodes)
        original(scope, operator, container)
        trees = [node for node in container.nodes[before:] if node.op_type.startswith("TreeEnsemble")]
        set_splits(trees[0], _splits(operator.raw_operator.booster_))

    skl2onnx.update_registered_converter(
        lightgbm.LGBMClassifier,
        "LightGbmLGBMClassifier",
        shapes.calculate_linear_classifier_output_shapes,
        converter,
        options={"nocl": [True, False], "zipmap": [True, False, "columns"]},
    )
    skl2onnx.update_registered_converter(
        lightgbm.LGBMRegressor,
        "LightGbmLGBMRegressor",
        shapes.calculate_linear_regressor_output_shapes,
        converter,
        options={"split": None},
    )


def _splits(booster: Any) -> list[Split | None]:
    return [
        None if node is None else _split(node)
        for tree in booster.dump_model()["tree_info"]
        for node in _in_order(tree["tree_structure"])
    ]


def _split(node: dict[str, Any]) -> Split:
    """Missing values go as `NumericalDecision` in LightGBM's tree.h sends them."""
    if node["decision_type"] != "<=":
        raise ConversionError(
            "the booster splits on sets of categories",
            value=node["decision_type"],
            rule="numerical splits",
            fix="encode categories in a ColumnTransformer and leave categorical_feature unset",
        )
    if node["missing_type"] == "Zero":
        raise ConversionError(
            "the booster takes zero as missing", rule="NaN as missing", fix="fit without zero_as_missing"
        )
    threshold = float(node["threshold"])
    return threshold, bool(node["default_left"]) if node["missing_type"] == "NaN" else threshold >= 0.0


def _in_order(root: dict[str, Any]) -> Iterator[dict[str, Any] | None]:
    """The nodes of a tree in the order of the converter's numbers, `None` for a leaf.

    A split numbers its two children before either of them is gone into, the left one first.
    """
    numbered: list[dict[str, Any] | None] = [None]
    stack = [(0, root)]
    while stack:
        number, node = stack.pop()
        if "left_child" in node:
            numbered[number] = node
            first = len(numbered)
            numbered += [None, None]
            stack += [(first + 1, node["right_child"]), (first, node["left_child"])]
    return iter(numbered)
