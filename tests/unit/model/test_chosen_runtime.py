"""A runtime with its options: what can be chosen, what is refused, and that the options really reach it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from modelyard.core.errors import ModelError, ModelyardError
from modelyard.model import onnx_runtime
from modelyard.model.answer import answer, opened
from modelyard.model.chosen_runtime import DEFAULT_RUNTIME, ChosenRuntime
from modelyard.model.model import Model
from modelyard.model.reader import read_model
from modelyard.model.runtime import LEVELS, RuntimeOptions


@pytest.fixture(scope="module")
def model() -> Model:
    weight = numpy_helper.from_array(np.eye(3, dtype=np.float32), "w")
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["z"]),
        helper.make_node("Softmax", ["z"], ["probabilities"], axis=1),
    ]
    graph = helper.make_graph(
        nodes, "three", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", 3])], [weight],
    )  # fmt: skip
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return read_model(made.SerializeToString(), task="classification", labels=("a", "b", "c"))


ROWS = {"x": np.array([[1, 2, 3], [3, 0, 1]], np.float32)}


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_every_choice_answers_alike(model: Model, name: str) -> None:
    if name == "openvino":
        pytest.importorskip("openvino")
    truth = answer(model, ROWS)
    for level in LEVELS:
        chosen = ChosenRuntime(name, {"optimize": level, "arena": True, "pattern": False, "prepack": False})
        np.testing.assert_allclose(answer(model, ROWS, chosen), truth, atol=1e-6)


def test_what_was_chosen_wins_over_what_is_given_and_the_rest_stays(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[RuntimeOptions] = []
    real = onnx_runtime.open_engine

    def spy(onnx: bytes, options: RuntimeOptions) -> Any:
        seen.append(options)
        return real(onnx, options)

    monkeypatch.setattr(onnx_runtime, "open_engine", spy)
    ChosenRuntime("onnxruntime", {"optimize": "basic", "spin": True}).load(model, RuntimeOptions(threads=2))
    assert seen == [RuntimeOptions(threads=2, optimize="basic", spin=True)]
    with opened(model):
        assert seen[-1] == RuntimeOptions()


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"arean": True}, "did you mean 'arena'"),
        ({"optimize": "hard"}, "one of all, extended, basic, none"),
        ({"optimize": True}, "one of all"),
        ({"arena": 1}, "true or false"),
        ({"spin": "yes"}, "true or false"),
        ({"threads": 0}, "a whole number from 1"),
        ({"threads": True}, "a whole number from 1"),
        ({"threads": 10**9}, "a whole number from 1 to 256"),
    ],
)
def test_options_that_there_are_not_are_refused(settings: dict[str, Any], match: str) -> None:
    with pytest.raises(ModelError, match=match):
        ChosenRuntime("onnxruntime", settings)


def test_a_name_that_cannot_be_one_and_one_that_nobody_knows(model: Model) -> None:
    with pytest.raises(ModelError, match="the runtime's name is wrong"):
        ChosenRuntime("../onnxruntime")
    with pytest.raises(ModelyardError, match="did you mean 'openvino'"):
        ChosenRuntime("openvina").load(model)
    assert ChosenRuntime("onnxruntime", {}) == DEFAULT_RUNTIME
