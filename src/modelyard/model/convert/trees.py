"""scikit-learn's trees as skl2onnx sees them, with missing values and thresholds that parity needs."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from modelyard.core.errors import ConversionError
from modelyard.core.require import require
from modelyard.model.convert.splits import Split, set_splits

_FORESTS = ("RandomForest", "ExtraTrees", "HistGradientBoosting")


@functools.cache
def register_trees() -> None:
    """Wraps skl2onnx's converters of forests and histogram boosting, once a process.

    skl2onnx 1.20 ignores where forests send missing values, and hands numpy scalars of scikit-learn 1.9 to
    onnx, which refuses them.
    """
    skl2onnx = require("skl2onnx", extra="train")
    ensemble = require("sklearn.ensemble", extra="train")
    registry = require("skl2onnx.common._registration", extra="train")
    names = require("skl2onnx._supported_operators", extra="train").sklearn_operator_name_map
    for family in _FORESTS:
        for kind in ("Classifier", "Regressor"):
            estimator = getattr(ensemble, family + kind)
            alias = names[estimator]
            original = registry.get_converter(alias)
            if getattr(original, "_fct", None).__module__ == __name__:
                continue
            skl2onnx.update_registered_converter(
                estimator,
                alias,
                registry.get_shape_calculator(alias),
                _wrapped(original),
                options=original.get_allowed_options(),
            )


def _wrapped(original: Any) -> Any:
    def converter(scope: Any, operator: Any, container: Any) -> None:
        before = len(container.nodes)
        original(scope, operator, _PlainContainer(container))
        trees = [node for node in container.nodes[before:] if node.op_type.startswith("TreeEnsemble")]
        if len(trees) == 1:
            set_splits(trees[0], _splits(operator.raw_operator))

    return converter


class _PlainContainer:
    """skl2onnx's container, with numpy scalars among the attributes turned into Python's."""

    def __init__(self, container: Any) -> None:
        self._container = container

    def __getattr__(self, name: str) -> Any:
        return getattr(self._container, name)

    def add_node(self, *args: Any, **attributes: Any) -> Any:
        """As the container's, with plain numbers."""
        plain = {name: _plain(value) for name, value in attributes.items()}
        return self._container.add_node(*args, **plain)


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return int(value) if isinstance(value, bool) else value


def _splits(estimator: Any) -> list[Split | None]:
    if hasattr(estimator, "_predictors"):
        return [
            None if node["is_leaf"] else _histogram_split(node)
            for trees in estimator._predictors
            for tree in trees
            for node in tree.nodes
        ]
    return [split for tree in estimator.estimators_ for split in _forest_splits(tree.tree_)]


def _histogram_split(node: Any) -> Split:
    if node["is_categorical"]:
        raise ConversionError(
            "the booster splits on sets of categories",
            rule="numerical splits",
            fix="encode categories in a ColumnTransformer and leave categorical_features unset",
        )
    return float(node["num_threshold"]), bool(node["missing_go_to_left"])


def _forest_splits(tree: Any) -> Sequence[Split | None]:
    return [
        (float(threshold), bool(left)) if child >= 0 else None
        for threshold, left, child in zip(
            tree.threshold, tree.missing_go_to_left, tree.children_left, strict=True
        )
    ]
