from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper


def make_graph(
    nodes: list[Any],
    *,
    inputs: list[Any] | None = None,
    outputs: list[Any] | None = None,
    initializers: list[Any] | None = None,
    functions: list[Any] | None = None,
    opsets: dict[str, int] | None = None,
) -> onnx.ModelProto:
    """A graph x [N,3] -> prediction [N,1] unless told otherwise."""
    inputs = inputs or [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3])]
    outputs = outputs or [helper.make_tensor_value_info("prediction", TensorProto.FLOAT, ["N", 1])]
    graph = helper.make_graph(nodes, "g", inputs, outputs, initializers or [])
    imports = [helper.make_opsetid(key, version) for key, version in (opsets or {"": 20}).items()]
    return helper.make_model(graph, opset_imports=imports, functions=functions or [], ir_version=10)


def linear() -> onnx.ModelProto:
    """prediction = x @ w, w a constant [3,1]."""
    weight = onnx.numpy_helper.from_array(np.array([[1.0], [2.0], [3.0]], np.float32), "w")
    return make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["prediction"], name="mm")], initializers=[weight]
    )


@pytest.fixture
def graph() -> Callable[..., onnx.ModelProto]:
    return make_graph


@pytest.fixture
def linear_model() -> onnx.ModelProto:
    return linear()
