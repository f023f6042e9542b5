"""What every `Target` keeps, whoever brings it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from modelyard.core.digest import digest_file
from modelyard.export.targets import TARGETS
from modelyard.model.model import Model
from modelyard.model.onnx_runtime import OnnxRuntime
from modelyard.model.reader import read_model


def model() -> Model:
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "w"], ["y"]),
            helper.make_node("Softmax", ["y"], ["probabilities"]),
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", 2])],
        [onnx.numpy_helper.from_array(np.arange(6, dtype=np.float32).reshape(3, 2), "w")],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return read_model(proto.SerializeToString(), task="classification", labels=("no", "yes"))


@pytest.mark.parametrize("name", TARGETS.names())
def test_what_is_built_answers_as_the_model(name: str, tmp_path: Path) -> None:
    target = TARGETS.get(name)
    assert target.name == name
    artifact = target.build(model(), tmp_path / "out")
    assert artifact.parity.passed and artifact.parity.measurements[0].n > 0
    for file, digest in artifact.files.items():
        assert digest_file(artifact.folder / file) == digest
    x = np.random.default_rng(1).normal(size=(4, 3)).astype(np.float32)
    wanted = OnnxRuntime().load(model()).run({"x": x})["probabilities"]
    np.testing.assert_allclose(target.run(artifact, {"x": x})["probabilities"], wanted, atol=1e-5)
