"""The gate refuses, with numbers, whatever is slower, worse, unsound or unlike its original."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from modelyard.compress.gate import Held, judge
from modelyard.compress.soundness import extreme_rows, random_rows
from modelyard.core.errors import ModelyardError
from modelyard.core.spec import TensorSpec
from modelyard.model.model import Model
from modelyard.model.reader import read_model

Case: TypeAlias = Any
"""A model with rows, from conftest.py."""


def changed(model: Model, change: Any) -> Model:
    """The model with its graph changed in place by a function."""
    proto = onnx.ModelProto.FromString(model.onnx)
    change(proto.graph)
    return read_model(proto.SerializeToString(), task=model.task, labels=model.labels)


def constant(graph: Any, name: str) -> Any:
    return next(item for item in graph.initializer if item.name == name)


def with_readout(case: Case, change: Any) -> Model:
    """The model with another last layer."""

    def swap(graph: Any) -> None:
        item = constant(graph, "wl")
        item.CopyFrom(numpy_helper.from_array(change(numpy_helper.to_array(item).copy()), "wl"))

    return changed(case.model, swap)


def test_a_model_with_more_work_is_refused_as_slower(tiny: Case) -> None:
    def slow(graph: Any) -> None:
        graph.node[-1].input[0] = "slow20"
        for step in range(20):
            before = f"slow{step}" if step else "logits"
            graph.node.insert(-1 + len(graph.node), helper.make_node("Erf", [before], [f"e{step}"]))
            graph.node.insert(
                -1 + len(graph.node), helper.make_node("Add", [before, "zero"], [f"slow{step + 1}"])
            )
        graph.initializer.append(numpy_helper.from_array(np.full(10, 1e-9, np.float32), "zero"))
        kept = [node for node in graph.node if node.op_type != "Erf"]
        del graph.node[:]
        graph.node.extend(kept)

    found = judge(
        tiny.model, changed(tiny.model, slow), tiny.held, metric="accuracy", margin=0.02, budget=0.6
    )
    assert not found.accepted
    assert found.speedup.high is not None and found.speedup.high < 1
    assert "not surely faster" in found.why


def test_lost_quality_is_refused_with_its_numbers(tiny: Case) -> None:
    def worse(weights: Any) -> Any:
        weights[:, 3] -= 0.3
        return weights

    found = judge(tiny.model, with_readout(tiny, worse), tiny.held, metric="accuracy", margin=0.02)
    assert not found.accepted
    assert "not proved to be within 0.02 on 897 rows" in found.why
    assert "worse" in found.why
    assert np.isnan(found.speedup.value)
    assert "before it was timed" in found.speedup.method


def test_a_ruined_slice_is_refused_though_the_whole_is_well(tiny: Case) -> None:
    # One class of ten loses all its rows; over all rows that stays within a wide margin.
    def lose_nine(weights: Any) -> Any:
        weights[:, 9] -= 1.0
        return weights

    candidate = with_readout(tiny, lose_nine)
    slices = {"all": np.ones(897, bool), "nines": tiny.held.targets == 9}
    found = judge(tiny.model, candidate, tiny.held, metric="accuracy", margin=0.2, slices=slices)
    assert not found.accepted
    assert found.why.startswith("slice nines:")
    assert [item.passed for item in found.verdicts] == [True, True, True, False]


def test_a_small_slice_lets_one_row_pass_and_not_two(tiny: Case) -> None:
    slices = {"few": np.arange(897) < 40, "none": np.zeros(897, bool)}
    found = judge(
        tiny.model, tiny.model, tiny.held, metric="accuracy", margin=0.01, slices=slices, budget=0.1
    )
    few, none = found.verdicts[2:4]
    assert few.passed and "too few to prove" in few.why
    assert none.passed and "nothing was compared" in none.why


def test_answers_that_are_not_numbers_are_refused(tiny: Case) -> None:
    def poison(weights: Any) -> Any:
        weights[0, 0] = np.nan
        return weights

    found = judge(tiny.model, with_readout(tiny, poison), tiny.held, metric="accuracy", margin=0.5)
    assert not found.accepted
    assert "on held-out rows 897 of 897 answers are not finite" in found.why


def test_nan_on_extreme_rows_only_is_refused(tiny: Case) -> None:
    def overflow(graph: Any) -> None:
        # exp(20 x) - exp(20 x): nothing on ordinary rows, infinity minus infinity on large ones.
        graph.initializer.append(numpy_helper.from_array(np.float32(20.0), "twenty"))
        del graph.node[:]
        graph.node.extend(
            [
                helper.make_node("Mul", ["x", "twenty"], ["t"]),
                helper.make_node("Exp", ["t"], ["e"]),
                helper.make_node("Sub", ["e", "e"], ["gap"]),
                helper.make_node("Add", ["x", "gap"], ["y"]),
                helper.make_node("Gemm", ["y", "w0", "b0"], ["h0"]),
                helper.make_node("Relu", ["h0"], ["r0"]),
                helper.make_node("Gemm", ["r0", "wl", "bl"], ["logits"]),
                helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
            ]
        )

    found = judge(tiny.model, changed(tiny.model, overflow), tiny.held, metric="accuracy", margin=0.5)
    assert not found.accepted
    assert "on extreme rows" in found.why
    assert "not finite where the original's are" in found.why


def test_probabilities_that_are_none_are_refused(tiny: Case) -> None:
    def raw(graph: Any) -> None:
        graph.node[-1].CopyFrom(helper.make_node("Identity", ["logits"], ["probabilities"]))

    found = judge(tiny.model, changed(tiny.model, raw), tiny.held, metric="accuracy", margin=0.5)
    assert not found.accepted
    assert "probabilities reach from" in found.why


def test_answers_that_depend_on_their_neighbours_are_refused_unless_allowed(tiny: Case) -> None:
    def centred(graph: Any) -> None:
        # Takes the batch's mean away: what a caller gets depends on who else asked.
        graph.node.insert(0, helper.make_node("Sub", ["x", "m0"], ["y"]))
        graph.node.insert(0, helper.make_node("Mul", ["m", "small"], ["m0"]))
        graph.node.insert(0, helper.make_node("ReduceMean", ["x"], ["m"], axes=[0], keepdims=1))
        graph.initializer.append(numpy_helper.from_array(np.float32(0.01), "small"))
        next(node for node in graph.node if node.op_type == "Gemm").input[0] = "y"

    candidate = changed(tiny.model, centred)
    strict = judge(tiny.model, candidate, tiny.held, metric="accuracy", margin=0.2)
    assert not strict.accepted
    assert "depends on the rows beside it" in strict.why
    allowed = judge(tiny.model, candidate, tiny.held, metric="accuracy", margin=0.2, mixing=True, budget=0.2)
    assert allowed.verdicts[0].passed


def test_another_signature_is_refused(tiny: Case, pictures: Case) -> None:
    found = judge(tiny.model, pictures.model, tiny.held, metric="accuracy", margin=0.5)
    assert not found.accepted
    assert "signature" in found.why


def test_a_graph_that_the_runtime_cannot_load_is_refused(tiny: Case) -> None:
    # Signature and graph disagree: the reader would never make this, a broken plugin may.
    broken = replace(tiny.model, onnx=b"\x08\x01 no graph")
    found = judge(tiny.model, broken, tiny.held, metric="accuracy", margin=0.5)
    assert not found.accepted
    assert "the runtime cannot load it" in found.why


def regression(nets: Any, scale: float) -> Model:
    """The sum of eight numbers, times a scale."""
    nodes = [helper.make_node("MatMul", ["x", "w"], ["prediction"])]
    data = nets.graph_bytes(
        nodes, {"w": np.full((8, 1), scale, np.float32)}, [nets.tensor_input("x", [8])], "prediction", 1
    )
    return read_model(data, task="regression")


def test_regression_is_judged_in_its_own_unit(nets: Any) -> None:
    rows = np.random.default_rng(0).uniform(1, 2, (400, 8)).astype(np.float32)
    held = Held({"x": rows}, rows.sum(axis=1).astype(np.float64))
    near = judge(regression(nets, 1.0), regression(nets, 1.001), held, metric="mae", margin=0.1, budget=0.1)
    assert all(item.passed for item in near.verdicts[:2])
    far = judge(regression(nets, 1.0), regression(nets, 1.1), held, metric="mae", margin=0.1, budget=0.1)
    assert not far.accepted
    assert "mae is" in far.why and "not proved" in far.why
    wild = judge(regression(nets, 1.0), regression(nets, 30.0), held, metric="mae", margin=1e9)
    assert "predictions reach from" in wild.why


@pytest.mark.serial
def test_goal_size_wants_smaller_and_not_slower(nets: Any) -> None:
    case = nets.mlp(512)
    half = changed(case.model, _half)
    found = judge(case.model, half, case.held, metric="accuracy", margin=0.02, goal="size", budget=1.0)
    assert found.size_ratio > 1.8
    speed = found.speedup
    assert found.accepted == (speed.high is not None and speed.high >= 1)
    same = judge(case.model, case.model, case.held, metric="accuracy", margin=0.02, goal="size")
    assert not same.accepted
    assert "1.00x smaller" in same.why


def _half(graph: Any) -> None:
    """Stores the weights as float16 and casts them when the graph is loaded."""
    for name in ("w0", "wl"):
        item = constant(graph, name)
        small = numpy_helper.to_array(item).astype(np.float16)
        item.CopyFrom(numpy_helper.from_array(small, f"{name}_half"))
        graph.node.insert(0, helper.make_node("Cast", [f"{name}_half"], [name], to=TensorProto.FLOAT))


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"margin": 0.0}, "margin"),
        ({"metric": "latency_p50"}, "is a cost"),
        ({"slices": {"a": np.ones(3, bool)}}, "slice 'a' marks 3 rows of 897"),
        ({"data": Held({"x": np.zeros((0, 64), np.float32)}, np.zeros(0, np.int64))}, "held-out rows"),
        ({"data": Held({"x": np.zeros((5, 64), np.float32)}, np.zeros(4, np.int64))}, "held-out rows"),
    ],
)
def test_wrong_arguments_are_refused(tiny: Case, options: dict[str, Any], match: str) -> None:
    arguments = {"data": tiny.held, "metric": "accuracy", "margin": 0.02} | options
    data = arguments.pop("data")
    with pytest.raises(ValueError, match=match):
        judge(tiny.model, tiny.model, data, **arguments)


def test_an_unknown_metric_is_named(tiny: Case) -> None:
    with pytest.raises(ModelyardError, match="did you mean"):
        judge(tiny.model, tiny.model, tiny.held, metric="acuracy", margin=0.1)


@pytest.mark.parametrize(
    ("datatype", "values"),
    [
        ("FP32", np.array([[1.0], [np.nan], [3.0]], np.float32)),
        ("FP16", np.array([[1.0], [3.0]], np.float16)),
        ("FP32", np.full((2, 1), np.nan, np.float32)),
        ("INT64", np.array([[2**62], [-5]])),
        ("UINT8", np.array([[3], [250]], np.uint8)),
        ("BOOL", np.array([[True], [False]])),
        ("BYTES", np.array([["a"], ["b"]], dtype=object)),
    ],
)
def test_made_up_rows_have_the_inputs_type_and_shape(datatype: str, values: Any) -> None:
    spec = TensorSpec("x", datatype, (-1, 1))
    for rows in (
        random_rows((spec,), {"x": values}, np.random.default_rng(0)),
        extreme_rows((spec,), {"x": values}),
    ):
        assert rows["x"].dtype == spec.dtype
        assert spec.accepts(rows["x"].shape)
        assert len(rows["x"]) >= 8
