from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from modelyard.core.errors import ModelError
from modelyard.export.onnx_folder import OnnxFolder
from modelyard.model.reader import read_model


def build(folder: Path) -> OnnxFolder:
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("ReduceSum", ["x", "axis"], ["prediction"])],
        "g",
        [value("x", TensorProto.FLOAT, ["N", 2]), value("city", TensorProto.STRING, ["N", 1])],
        [value("prediction", TensorProto.FLOAT, ["N", 1])],
        [onnx.numpy_helper.from_array(np.array([1], np.int64), "axis")],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    target = OnnxFolder()
    artifact = target.build(read_model(proto.SerializeToString(), task="regression"), folder)
    text = {"x": np.ones((1, 2), np.float32), "city": np.array([["bern"]], object)}
    assert target.run(artifact, text)["prediction"] == 2

    (folder / "model.onnx").write_bytes(b"broken")
    with pytest.raises(ModelError, match="example fails"):
        target.run(artifact, text)
    write_back = target.build(read_model(proto.SerializeToString(), task="regression"), folder)
    assert write_back.files == artifact.files
    return target


def test_the_folder_runs_as_its_readme_says(tmp_path: Path) -> None:
    build(tmp_path)
    assert "python example.py" in (tmp_path / "README.md").read_text()
    done = subprocess.run(
        [sys.executable, "-I", tmp_path / "example.py"], capture_output=True, text=True, check=True
    )
    assert done.stdout == "0.0\n"
    source = (tmp_path / "example.py").read_text()
    assert "modelyard" not in source
