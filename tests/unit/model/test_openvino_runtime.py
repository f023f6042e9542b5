"""OpenVINO behind the protocol: the same answers, text passed by, and a clear word when it is missing."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from modelyard.core.errors import MissingExtra, ModelError
from modelyard.model import openvino_runtime
from modelyard.model.model import Model
from modelyard.model.onnx_runtime import OnnxRuntime
from modelyard.model.openvino_runtime import OpenVinoRuntime, without_text
from modelyard.model.reader import read_model
from modelyard.model.runtimes import RUNTIMES


def network(*, text: bool = False, compute: str = "Identity") -> Model:
    rng = np.random.default_rng(0)
    value = helper.make_tensor_value_info
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("GlobalAveragePool", ["r"], ["g"]),
        helper.make_node("Flatten", ["g"], ["f"], axis=1),
        helper.make_node("Gemm", ["f", "v"], ["prediction"]),
    ]
    inputs = [value("x", TensorProto.FLOAT, ["N", 1, 6, 6])]
    outputs = [value("prediction", TensorProto.FLOAT, ["N", 1])]
    if text:
        inputs.append(value("city", TensorProto.STRING, ["N", 1]))
        outputs.append(value("echo", TensorProto.STRING, ["N", 1]))
        nodes += [
            helper.make_node("Identity", ["city"], ["middle"]),
            helper.make_node(compute, ["middle"], ["echo"]),
        ]
    constants = [
        numpy_helper.from_array(rng.normal(size=(4, 1, 3, 3)).astype(np.float32), "w"),
        numpy_helper.from_array(rng.normal(size=(4, 1)).astype(np.float32), "v"),
    ]
    graph = helper.make_graph(nodes, "g", inputs, outputs, constants)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return read_model(made.SerializeToString(), task="regression")


def test_it_is_known_whether_or_not_it_is_installed() -> None:
    assert RUNTIMES.names() == sorted({"onnxruntime", "openvino", *RUNTIMES.names()})


def test_importing_the_runtimes_does_not_import_it() -> None:
    code = "import sys, modelyard.model.runtimes; sys.exit('openvino' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_missing_install_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    openvino_runtime._core.cache_clear()
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MissingExtra, match=r"modelyard\[openvino\]"):
        OpenVinoRuntime().load(network())
    openvino_runtime._core.cache_clear()


def test_its_answers_are_those_of_onnxruntime() -> None:
    pytest.importorskip("openvino")
    model = network()
    rows = np.random.default_rng(1).normal(size=(7, 1, 6, 6)).astype(np.float32)
    sessions = [runtime.load(model) for runtime in (OnnxRuntime(), OpenVinoRuntime())]
    for count in (1, 7, 3):
        answers = [session.run({"x": rows[:count]})["prediction"] for session in sessions]
        np.testing.assert_allclose(answers[0], answers[1], rtol=1e-5, atol=1e-6)
    sessions[1].close()
    with pytest.raises(ModelError, match="closed"):
        sessions[1].run({"x": rows})


def test_answers_are_not_written_over_by_the_next_call() -> None:
    pytest.importorskip("openvino")
    session = OpenVinoRuntime().load(network())
    first = session.run({"x": np.ones((1, 1, 6, 6), np.float32)})["prediction"]
    kept = first.copy()
    session.run({"x": np.full((1, 1, 6, 6), 9, np.float32)})
    np.testing.assert_array_equal(first, kept)


def test_text_passes_by() -> None:
    pytest.importorskip("openvino")
    model = network(text=True)
    city = np.array([["bern"], ["zürich\0x"]], object)
    rows = np.zeros((2, 1, 6, 6), np.float32)
    answer = OpenVinoRuntime().load(model).run({"x": rows, "city": city})
    assert answer["echo"].tolist() == city.tolist()
    assert answer["echo"] is not city
    assert without_text(model)[1] == {"echo": "city"}


def test_what_computes_with_text_is_refused() -> None:
    pytest.importorskip("openvino")
    with pytest.raises(ModelError, match="does not compute with text"):
        OpenVinoRuntime().load(network(text=True, compute="Flatten"))


def test_trees_are_refused_with_the_way_out() -> None:
    pytest.importorskip("openvino")
    node = helper.make_node(
        "TreeEnsembleRegressor", ["x"], ["prediction"], domain="ai.onnx.ml", n_targets=1,
        nodes_treeids=[0, 0, 0], nodes_nodeids=[0, 1, 2], nodes_featureids=[0, 0, 0],
        nodes_modes=["BRANCH_LEQ", "LEAF", "LEAF"], nodes_values=[0.5, 0.0, 0.0],
        nodes_truenodeids=[1, 0, 0], nodes_falsenodeids=[2, 0, 0],
        nodes_missing_value_tracks_true=[0, 0, 0], nodes_hitrates=[1.0, 1.0, 1.0],
        target_treeids=[0, 0], target_nodeids=[1, 2], target_ids=[0, 0], target_weights=[1.0, 5.0],
    )  # fmt: skip
    graph = helper.make_graph(
        [node], "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 1])],
        [helper.make_tensor_value_info("prediction", TensorProto.FLOAT, ["N", 1])],
    )  # fmt: skip
    imports = [helper.make_opsetid("", 20), helper.make_opsetid("ai.onnx.ml", 3)]
    made = helper.make_model(graph, opset_imports=imports, ir_version=10)
    with pytest.raises(ModelError, match=r"openvino refuses the graph.*onnxruntime"):
        OpenVinoRuntime().load(read_model(made.SerializeToString(), task="regression"))
