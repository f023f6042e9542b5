"""Networks with real accuracy and no training: random features, a readout solved by least squares."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_digits

from modelyard.compress.gate import Held
from modelyard.core.spec import Tensors
from modelyard.model.model import Model
from modelyard.model.reader import read_model

LABELS = tuple(str(digit) for digit in range(10))


@dataclass(frozen=True)
class Case:
    """A model with rows to calibrate with and rows held out."""

    model: Model
    calibration: Tensors
    held: Held


def digits() -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))
    return (images[order] / 16).astype(np.float32), labels[order].astype(np.int64)


def graph_bytes(
    nodes: list[Any],
    constants: dict[str, np.ndarray[Any, Any]],
    inputs: list[Any],
    output: str = "probabilities",
    columns: int = 10,
    opset: int = 17,
) -> bytes:
    initializers = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    out = helper.make_tensor_value_info(output, TensorProto.FLOAT, ["N", columns])
    graph = helper.make_graph(nodes, "graph", inputs, [out], initializers)
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("ai.onnx.ml", 3)]
    return helper.make_model(graph, opset_imports=imports, ir_version=9).SerializeToString()


def tensor_input(name: str, shape: list[int], kind: int = TensorProto.FLOAT) -> Any:
    return helper.make_tensor_value_info(name, kind, ["N", *shape])


def readout(features: np.ndarray[Any, Any], labels: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Weights [D,10] by ridge regression onto sharp logits."""
    target = 12.0 * (np.eye(10)[labels] - 0.1)
    gram = features.T @ features + 1e-2 * len(features) * np.eye(features.shape[1])
    return np.linalg.solve(gram, features.T @ target).astype(np.float32)


def case_of(data: bytes, inputs: np.ndarray[Any, Any], labels: np.ndarray[Any, Any]) -> Case:
    model = read_model(data, task="classification", labels=LABELS)
    return Case(model, {"x": inputs[:200]}, Held({"x": inputs[900:]}, labels[900:]))


def mlp(*widths: int) -> Case:
    """An MLP on the digits: all layers but the last are random, the last is solved for."""
    images, labels = digits()
    rng = np.random.default_rng(1)
    constants: dict[str, np.ndarray[Any, Any]] = {}
    nodes, now, hidden = [], "x", images
    for layer, width in enumerate(widths):
        fan = hidden.shape[1]
        weight = (rng.normal(size=(fan, width)) * np.sqrt(2 / fan)).astype(np.float32)
        bias = rng.normal(size=width).astype(np.float32) * 0.1
        constants |= {f"w{layer}": weight, f"b{layer}": bias}
        nodes.append(helper.make_node("Gemm", [now, f"w{layer}", f"b{layer}"], [f"h{layer}"]))
        nodes.append(helper.make_node("Relu", [f"h{layer}"], [f"r{layer}"]))
        hidden, now = np.maximum(hidden @ weight + bias, 0), f"r{layer}"
    constants |= {"wl": readout(hidden[:900], labels[:900]), "bl": np.zeros(10, np.float32)}
    nodes.append(helper.make_node("Gemm", [now, "wl", "bl"], ["logits"]))
    nodes.append(helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1))
    return case_of(graph_bytes(nodes, constants, [tensor_input("x", [64])]), images, labels)


def cnn(channels: int = 16) -> Case:
    """A small convolutional network on the digits, with a batch norm to fuse and a dead node."""
    images, labels = digits()
    pictures = images.reshape(-1, 1, 8, 8)
    rng = np.random.default_rng(2)
    weight = (rng.normal(size=(channels, 1, 3, 3)) * 0.6).astype(np.float32)
    constants: dict[str, np.ndarray[Any, Any]] = {
        "w": weight,
        "scale": rng.uniform(0.5, 1.5, channels).astype(np.float32),
        "shift": rng.normal(size=channels).astype(np.float32) * 0.1,
        "mean": np.zeros(channels, np.float32),
        "variance": np.ones(channels, np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("BatchNormalization", ["c", "scale", "shift", "mean", "variance"], ["n"]),
        helper.make_node("Relu", ["n"], ["r"]),
        helper.make_node("Sigmoid", ["r"], ["nobody_reads_this"]),
        helper.make_node("MaxPool", ["r"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Flatten", ["p"], ["f"], axis=1),
    ]
    padded = np.pad(pictures, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
    maps = np.einsum("nchwij,kcij->nkhw", windows, weight)
    maps = maps * (constants["scale"] / np.sqrt(1 + 1e-5))[:, None, None] + constants["shift"][:, None, None]
    pooled = np.maximum(maps, 0).reshape(-1, channels, 4, 2, 4, 2).max(axis=(3, 5)).reshape(len(images), -1)
    constants |= {"wl": readout(pooled[:900], labels[:900]), "bl": np.zeros(10, np.float32)}
    nodes.append(helper.make_node("Gemm", ["f", "wl", "bl"], ["logits"]))
    nodes.append(helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1))
    return case_of(graph_bytes(nodes, constants, [tensor_input("x", [1, 8, 8])]), pictures, labels)


@pytest.fixture(scope="session")
def tiny() -> Case:
    """So small that int8 only adds work."""
    return mlp(24)


@pytest.fixture(scope="session")
def wide() -> Case:
    """Wide enough for int8 to win."""
    return mlp(768, 768)


@pytest.fixture(scope="session")
def pictures() -> Case:
    return cnn()


@pytest.fixture(scope="session")
def trees() -> Case:
    """A tree ensemble, as scikit-learn's pipelines become: nothing there is a matrix product."""
    images, labels = digits()
    node = helper.make_node(
        "TreeEnsembleRegressor", ["x"], ["prediction"], domain="ai.onnx.ml", n_targets=1,
        nodes_treeids=[0, 0, 0], nodes_nodeids=[0, 1, 2], nodes_featureids=[20, 0, 0],
        nodes_modes=["BRANCH_LEQ", "LEAF", "LEAF"], nodes_values=[0.5, 0.0, 0.0],
        nodes_truenodeids=[1, 0, 0], nodes_falsenodeids=[2, 0, 0],
        nodes_missing_value_tracks_true=[0, 0, 0], nodes_hitrates=[1.0, 1.0, 1.0],
        target_treeids=[0, 0], target_nodeids=[1, 2], target_ids=[0, 0], target_weights=[1.0, 5.0],
    )  # fmt: skip
    data = graph_bytes([node], {}, [tensor_input("x", [64])], "prediction", 1)
    model = read_model(data, task="regression")
    return Case(model, {"x": images[:200]}, Held({"x": images[900:]}, labels[900:].astype(np.float64)))


@pytest.fixture(scope="session")
def nets() -> SimpleNamespace:
    """What makes networks, for tests that want one of their own."""
    return SimpleNamespace(
        mlp=mlp, cnn=cnn, digits=digits, graph_bytes=graph_bytes, tensor_input=tensor_input, labels=LABELS
    )
