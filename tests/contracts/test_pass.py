"""What every compression pass keeps, built in or brought by a plugin."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from modelyard.compress.catalogue import PASSES
from modelyard.compress.pass_protocol import Compressed, Pass
from modelyard.compress.plan_steps import KINDS, step_of
from modelyard.compress.plan_trainable import Bound, Trainable
from modelyard.compress.sharing_file import pack, unpack
from modelyard.core.errors import CompressError
from modelyard.core.spec import Tensors
from modelyard.model.model import Model
from modelyard.model.onnx_runtime import OnnxRuntime
from modelyard.model.predict import predict
from modelyard.model.reader import read_model
from modelyard.train.dataset import Dataset

STEPS = [step for name in PASSES.names() for step in PASSES.get(name)]
TRAINED = [name for name, kind in KINDS.items() if kind.trains]
LABELS = ("a", "b", "c")

ROUGH = ("prune", "low-rank", "share", "int4")
"""Passes that really take something away: on random weights their answers may move at will."""


def graph(
    nodes: list[Any], constants: dict[str, Any], inputs: list[Any], task: str = "classification"
) -> Model:
    output, columns = ("probabilities", 3) if task == "classification" else ("prediction", 1)
    out = helper.make_tensor_value_info(output, TensorProto.FLOAT, ["N", columns])
    initializers = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    made = helper.make_graph(nodes, "graph", inputs, [out], initializers)
    data = helper.make_model(
        made, opset_imports=[helper.make_opsetid("", 17)], ir_version=9
    ).SerializeToString()
    if task == "classification":
        return read_model(data, task="classification", labels=LABELS)
    return read_model(data, task="regression")


def dense() -> tuple[Model, Tensors]:
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("Identity", ["x"], ["y"]),
        helper.make_node("Gemm", ["y", "w", "b"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "v"], ["l"]),
        helper.make_node("Softmax", ["l"], ["probabilities"], axis=1),
    ]
    constants = {
        "w": rng.normal(size=(6, 16)).astype(np.float32),
        "b": np.zeros(16, np.float32),
        "v": rng.normal(size=(16, 3)).astype(np.float32),
    }
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 6])]
    return graph(nodes, constants, inputs), {"x": rng.normal(size=(100, 6)).astype(np.float32)}


def picture() -> tuple[Model, Tensors]:
    rng = np.random.default_rng(1)
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("GlobalAveragePool", ["r"], ["g"]),
        helper.make_node("Flatten", ["g"], ["f"], axis=1),
        helper.make_node("Identity", ["f"], ["i"]),
        helper.make_node("Gemm", ["i", "v"], ["prediction"]),
    ]
    constants = {
        "w": rng.normal(size=(4, 2, 3, 3)).astype(np.float32),
        "v": rng.normal(size=(4, 1)).astype(np.float32),
    }
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 2, 5, 5])]
    rows = {"x": rng.normal(size=(100, 2, 5, 5)).astype(np.float32)}
    return graph(nodes, constants, inputs, "regression"), rows


CASES = {"dense": dense, "picture": picture}


def applied(step: Pass, model: Model, rows: Tensors) -> Compressed | CompressError:
    try:
        return step.apply(model, rows)
    except CompressError as error:
        return error


def test_each_alternative_has_a_name_of_its_own() -> None:
    names = [step.name for step in STEPS]
    assert len(set(names)) == len(names)
    assert all(">" not in name for name in names)


def trainable(model: Model, rows: Tensors) -> Trainable:
    """Rows to train on whose targets are what the model itself answers."""
    said = predict(OnnxRuntime().load(model), rows)
    task = model.task
    targets = (
        said.argmax(axis=1).astype(np.int64) if task == "classification" else said[:, 0].astype(np.float64)
    )
    train, held = (
        {name: values[part] for name, values in rows.items()} for part in (slice(60), slice(60, None))
    )
    return Trainable(None, {}, Dataset(task, model.labels, train, targets[:60], held, targets[60:]))


def bound(name: str, model: Model, rows: Tensors) -> Pass:
    given = {"epochs": 1} if "epochs" in KINDS[name].options() else {}
    return Bound(step_of(name, given), trainable(model, rows))


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.name)
@pytest.mark.parametrize("case", list(CASES))
def test_what_comes_out_is_the_same_kind_of_model(
    step: Pass, case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    model, rows = CASES[case]()
    kept, copy = model.onnx, {name: values.copy() for name, values in rows.items()}
    found = applied(step, model, rows)
    assert model.onnx == kept
    assert all((rows[name] == values).all() for name, values in copy.items())
    assert capfd.readouterr() == ("", "")
    assert not list(tmp_path.iterdir())
    if isinstance(found, CompressError):
        assert str(found)
        return
    assert (found.model.signature, found.model.task, found.model.labels) == (
        model.signature, model.task, model.labels,
    )  # fmt: skip
    assert found.notes and all(isinstance(note, str) for note in found.notes)
    # Read back once more, the bytes are the same: nothing there that the reader would refuse or drop.
    again = read_model(found.model.onnx, task=model.task, labels=model.labels)
    assert again.digest == found.model.digest
    assert unpack(pack(found.model.onnx)) == found.model.onnx
    was, now = (predict(OnnxRuntime().load(item), rows) for item in (model, found.model))
    assert now.shape == was.shape
    assert np.isfinite(now).all()
    if not step.name.startswith(ROUGH) and not isinstance(step, Bound):
        assert float(np.abs(now - was).max()) < 0.2 * max(1.0, float(np.ptp(was)))


@pytest.mark.parametrize("name", TRAINED)
@pytest.mark.parametrize("case", list(CASES))
def test_what_learns_keeps_the_same_rules(
    name: str, case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    step = bound(name, *CASES[case]())
    test_what_comes_out_is_the_same_kind_of_model(step, case, tmp_path, monkeypatch, capfd)


@pytest.mark.parametrize("name", TRAINED)
def test_what_learns_learns_the_same_each_time(name: str) -> None:
    model, rows = dense()
    digests = set()
    for _ in range(2):
        found = applied(bound(name, model, rows), model, rows)
        digests.add(found.model.digest if isinstance(found, Compressed) else str(found))
    assert len(digests) == 1


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.name)
def test_the_same_bytes_come_out_each_time(step: Pass) -> None:
    model, rows = picture()
    first, second = (applied(step, model, rows) for _ in range(2))
    if isinstance(first, Compressed) and isinstance(second, Compressed):
        assert first.model.digest == second.model.digest
    else:
        assert str(first) == str(second)


def strange() -> tuple[Model, Tensors]:
    """Operators between the layers that no pass follows, and a second input axis of any length."""
    rng = np.random.default_rng(2)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("CumSum", ["h", "two"], ["c"]),
        helper.make_node("ReduceMean", ["c"], ["m"], axes=[1], keepdims=0),
        helper.make_node("Gemm", ["m", "v"], ["l"]),
        helper.make_node("Softmax", ["l"], ["probabilities"], axis=1),
    ]
    constants = {
        "w": rng.normal(size=(6, 32)).astype(np.float32),
        "v": rng.normal(size=(32, 3)).astype(np.float32),
        "two": np.int64(2),
    }
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", "T", 6])]
    return graph(nodes, constants, inputs), {"x": rng.normal(size=(100, 4, 6)).astype(np.float32)}


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.name)
def test_unknown_operators_and_dynamic_axes_are_left_as_they_are(step: Pass) -> None:
    model, rows = strange()
    found = applied(step, model, rows)
    if isinstance(found, Compressed):
        assert "CumSum" in [node.op_type for node in onnx.ModelProto.FromString(found.model.onnx).graph.node]
        session = OnnxRuntime().load(found.model)
        for length in (1, 9):
            assert np.isfinite(predict(session, {"x": np.ones((2, length, 6), np.float32)})).all()


@pytest.mark.parametrize("name", TRAINED)
def test_what_learns_says_which_operators_it_cannot_train(name: str) -> None:
    model, rows = strange()
    with pytest.raises(CompressError, match=r"cannot be trained.*CumSum|does not apply"):
        bound(name, model, rows).apply(model, rows)


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.name)
def test_one_row_a_batch_and_many_give_answers(step: Pass) -> None:
    model, rows = dense()
    found = applied(step, model, rows)
    if isinstance(found, Compressed):
        session = OnnxRuntime().load(found.model)
        for count in (1, 7, 100):
            assert len(predict(session, {"x": rows["x"][:count]})) == count


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.name)
def test_a_graph_without_weights_is_left_alone_and_said(step: Pass) -> None:
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3])]
    model = graph([helper.make_node("Softmax", ["x"], ["probabilities"], axis=1)], {}, inputs)
    with pytest.raises(CompressError, match="does not apply"):
        step.apply(model, {"x": np.zeros((50, 3), np.float32)})
