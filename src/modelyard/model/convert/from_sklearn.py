"""scikit-learn (and LightGBM inside it) to ONNX through skl2onnx."""

from __future__ import annotations

import warnings
from typing import Any

from modelyard.core.errors import ConversionError
from modelyard.core.require import require
from modelyard.core.spec import Tensors
from modelyard.model.convert.finish import finish, prefix_matrix
from modelyard.model.convert.frame import is_scalar
from modelyard.model.convert.from_lightgbm import register_lightgbm
from modelyard.model.convert.scaler import register_scaler
from modelyard.model.convert.trees import register_trees
from modelyard.model.model import Task

OPSETS = {"": 20, "ai.onnx.ml": 3}


def sklearn_graph(trained: Any, sample: Tensors, task: Task, classes: int) -> bytes:
    """The estimator as ONNX bytes that obey the one tensor rule; raises `ConversionError` when it cannot be.

    An estimator with a ColumnTransformer keeps one input a column; any other is given its columns side by
    side inside the graph.
    """
    skl2onnx = require("skl2onnx", extra="train")
    register_trees()
    register_scaler()
    register_lightgbm()
    _check_features(trained, sample)
    seen = class_columns(trained, classes) if task == "classification" else None
    single = not _takes_columns(trained)
    types = _matrix_type(sample) if single else _column_types(sample)
    with warnings.catch_warnings():
        # skl2onnx and scikit-learn warn of each other's deprecations; parity is what decides here.
        warnings.simplefilter("ignore")
        try:
            proto = _convert(skl2onnx, trained, types, task)
        except ConversionError:
            raise
        except Exception as error:  # skl2onnx raises RuntimeError, NameError, KeyError and its own classes.
            raise ConversionError(
                f"{type(trained).__name__} does not become ONNX ({_reason(error)})",
                fix="use a step that skl2onnx supports (https://onnx.ai/sklearn-onnx/supported.html)",
            ) from error
    names = [item.name for item in proto.graph.input]
    outputs = [item.name for item in proto.graph.output]
    if single:
        inputs = [f"column{index}" for index in range(len(sample))]
        prefix_matrix(proto, names[0], sample, inputs)
    else:
        known = dict(zip((name for name, _ in types), names, strict=False))
        inputs = [known.get(name, name) for name in sample]
    answer = outputs[1] if task == "classification" else outputs[0]
    width = classes if task == "classification" else 1
    columns = seen if seen is not None and list(seen) != list(range(classes)) else None
    return finish(proto, sample, task=task, inputs=inputs, output=answer, width=width, columns=columns)


def class_columns(trained: Any, classes: int) -> tuple[int, ...]:
    """The class indices that the classifier saw, in the order of its columns."""
    if not hasattr(trained, "predict_proba"):
        raise ConversionError(
            f"{type(trained).__name__} gives no probabilities",
            rule="a classifier with predict_proba",
            fix="wrap it in CalibratedClassifierCV, or set its option for probabilities",
        )
    found = list(trained.classes_)
    try:
        seen = tuple(int(label) for label in found)
        whole = all(float(label) == index for label, index in zip(found, seen, strict=True))
    except (TypeError, ValueError):
        whole, seen = False, ()
    if not whole or any(not 0 <= index < classes for index in seen):
        raise ConversionError(
            "the classifier was fitted on other classes than the contract's",
            value=[str(label) for label in found[:10]],
            rule=f"class indices 0 to {classes - 1}",
            fix="fit it on the targets as they are given, without encoding them again",
        )
    return seen


def _convert(skl2onnx: Any, trained: Any, types: list[tuple[str, Any]], task: Task) -> Any:
    options = {id(trained): {"zipmap": False}} if task == "classification" else None
    return skl2onnx.convert_sklearn(
        trained, name="model", initial_types=types, options=options, target_opset=OPSETS
    )


def _check_features(trained: Any, sample: Tensors) -> None:
    names = getattr(trained, "feature_names_in_", None)
    scalars = all(is_scalar(array) for array in sample.values())
    if names is None or not scalars:
        return
    # Another order is a fault; other spellings are LightGBM's, which replaces spaces in names.
    if len(names) != len(sample) or (set(names) == set(sample) and list(names) != list(sample)):
        raise ConversionError(
            "the estimator was fitted on other columns",
            value=[str(name) for name in names][:20],
            rule=f"the contract's features in order: {', '.join(list(sample)[:20])}",
        )


def _takes_columns(trained: Any) -> bool:
    """Whether anything in the estimator selects columns (a ColumnTransformer, however deep)."""
    compose = require("sklearn.compose", extra="train")
    stack, seen = [trained], set()
    while stack:
        item = stack.pop()
        if id(item) in seen:
            continue
        seen.add(id(item))
        if isinstance(item, compose.ColumnTransformer):
            return True
        for held in getattr(item, "__dict__", {}).values():
            parts = held if isinstance(held, list | tuple) else (held,)
            for part in parts:
                stack.extend(
                    one
                    for one in (part if isinstance(part, tuple) else (part,))
                    if hasattr(one, "get_params")
                )
    return False


def _column_types(sample: Tensors) -> list[tuple[str, Any]]:
    types = require("skl2onnx.common.data_types", extra="train")
    if any(not is_scalar(array) for array in sample.values()):
        raise ConversionError(
            "a ColumnTransformer needs scalar columns", value={k: list(v.shape) for k, v in sample.items()}
        )
    return [
        (
            name,
            types.StringTensorType([None, 1]) if array.dtype == object else types.FloatTensorType([None, 1]),
        )
        for name, array in sample.items()
    ]


def _matrix_type(sample: Tensors) -> list[tuple[str, Any]]:
    types = require("skl2onnx.common.data_types", extra="train")
    text = [name for name, array in sample.items() if array.dtype == object]
    if text and len(text) < len(sample):
        raise ConversionError(
            "the estimator is given text and numbers side by side",
            value=text,
            rule="one type for all columns, or a ColumnTransformer that parts them",
            fix="put a ColumnTransformer with an encoder for these columns in front",
        )
    width = sum(array[0].size for array in sample.values())
    kind = types.StringTensorType if text else types.FloatTensorType
    return [("matrix", kind([None, width]))]


def _reason(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__
