"""The gate asks the engine what it ran, and a refusal names what lost: operators or slices."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from modelyard.compress.compress import compress
from modelyard.compress.execution import (
    OperatorRun,
    meant_int8,
    operator_runs,
    ran_as_meant,
    shifts,
)
from modelyard.compress.gate import judge
from modelyard.compress.passes.int8_dynamic import DynamicInt8
from modelyard.compress.passes.int8_static import StaticInt8
from modelyard.core.errors import ModelError
from modelyard.model.model import Model
from modelyard.model.openvino_runtime import OpenVinoRuntime
from modelyard.model.reader import read_model

Case: TypeAlias = Any
"""A model with rows, from conftest.py."""


def one(case: Case) -> dict[str, Any]:
    return {name: values[:1] for name, values in case.held.tensors.items()}


def changed(model: Model, change: Any) -> Model:
    proto = onnx.ModelProto.FromString(model.onnx)
    change(proto.graph)
    return read_model(proto.SerializeToString(), task=model.task, labels=model.labels)


def half_quantized(case: Case) -> Model:
    """Weights and rows in int8 as asked for, but a node between that no engine can melt into the product."""
    quantized = StaticInt8("u8").apply(case.model, case.calibration).model

    def part(graph: Any) -> None:
        conv = next(node for node in graph.node if node.op_type == "Conv")
        after = next(node for node in graph.node if conv.output[0] in node.input)
        # A sum over everything that is read instead of the quantized answer keeps the convolution in float.
        graph.node.insert(
            list(graph.node).index(after), helper.make_node("Softplus", [conv.output[0]], ["soft"])
        )
        after.input[0] = "soft"

    return changed(quantized, part)


def test_what_ran_is_told_with_the_nodes_behind_it(pictures: Case) -> None:
    quantized = StaticInt8("u8").apply(pictures.model, pictures.calibration).model
    runs = operator_runs(quantized, one(pictures), repeats=3)
    assert runs is not None
    int8 = {run.operator: run for run in runs if run.int8}
    assert set(int8) == {"QLinearConv", "QGemm"}
    assert int8["QLinearConv"].node.startswith("Conv")
    assert all(run.seconds > 0 for run in runs)
    meant = meant_int8(onnx.ModelProto.FromString(quantized.onnx))
    assert [name[:4] for name in sorted(meant.values())] == ["Conv", "Gemm"]
    assert ran_as_meant(meant, runs)[0] == ()


def test_dynamic_products_are_meant_and_run(tiny: Case) -> None:
    dynamic = DynamicInt8().apply(tiny.model, tiny.calibration).model
    meant = meant_int8(onnx.ModelProto.FromString(dynamic.onnx))
    runs = operator_runs(dynamic, one(tiny), repeats=1)
    assert runs is not None
    missing, ran = ran_as_meant(meant, runs)
    assert len(meant) == 2
    assert missing == ()
    assert {run.operator for run in ran} == {"DynamicQuantizeMatMul"}


def test_a_float_model_means_no_int8(tiny: Case) -> None:
    assert meant_int8(onnx.ModelProto.FromString(tiny.model.onnx)) == {}


def test_small_weights_that_are_used_in_float_are_not_meant(tiny: Case) -> None:
    def store_small(graph: Any) -> None:
        weight = next(item for item in graph.initializer if item.name == "w0")
        values = numpy_helper.to_array(weight)
        scale = np.float32(np.abs(values).max() / 127)
        graph.initializer.append(numpy_helper.from_array(scale, "scale"))
        small = np.rint(values / scale).astype(np.int8)
        weight.CopyFrom(numpy_helper.from_array(small, "small"))
        graph.node.insert(0, helper.make_node("DequantizeLinear", ["small", "scale"], ["w0"]))

    stored = changed(tiny.model, store_small)
    assert meant_int8(onnx.ModelProto.FromString(stored.onnx)) == {}
    found = judge(tiny.model, stored, tiny.held, metric="accuracy", margin=0.1, goal="size", budget=0.2)
    operators = next(item for item in found.verdicts if item.claim == "compress.operators")
    assert operators.passed


def test_int8_that_falls_back_to_float_is_refused_by_name(pictures: Case) -> None:
    found = judge(pictures.model, half_quantized(pictures), pictures.held, metric="accuracy", margin=0.9)
    operators = next(item for item in found.verdicts if item.claim == "compress.operators")
    assert not operators.passed
    lost = operators.details["not_int8"]
    assert len(lost) == 1 and lost[0].startswith("Conv")
    assert not found.accepted
    assert "1 of 2 operators meant to be int8 ran in float: Conv" in found.why
    assert np.isnan(found.speedup.value)


@pytest.mark.serial
def test_a_refusal_for_speed_names_the_operators_that_lost(tiny: Case) -> None:
    candidate = StaticInt8("s8").apply(tiny.model, tiny.calibration).model
    found = judge(tiny.model, candidate, tiny.held, metric="accuracy", margin=0.05, budget=0.6)
    assert not found.accepted
    assert "time was lost in" in found.why
    assert "QuantizeLinear" in found.why
    moved = found.verdicts[-1].details["operators"]
    assert {"operator", "before", "after"} == set(moved[0])
    new = next(item for item in moved if item["operator"] == "QuantizeLinear")
    assert new["before"] == 0 and new["after"] > 0


def test_every_slice_that_lost_is_named_and_kept_as_data(tiny: Case) -> None:
    def lose(graph: Any) -> None:
        item = next(item for item in graph.initializer if item.name == "wl")
        weights = numpy_helper.to_array(item).copy()
        weights[:, 8:] -= 1.0
        item.CopyFrom(numpy_helper.from_array(weights, "wl"))

    slices = {
        "eights": tiny.held.targets == 8,
        "nines": tiny.held.targets == 9,
        "ones": tiny.held.targets == 1,
    }
    candidate = changed(tiny.model, lose)
    found = judge(tiny.model, candidate, tiny.held, metric="accuracy", margin=0.5, slices=slices)
    assert not found.accepted
    assert "slice eights:" in found.why and "slice nines:" in found.why
    assert "slice ones:" not in found.why
    assert len(found.verdicts) == 5
    assert [item.passed for item in found.verdicts] == [True, True, False, False, True]


def test_families_are_compared_whatever_the_engine_calls_them() -> None:
    before = [OperatorRun("Conv", "c", 0, 30e-6, False), OperatorRun("Softmax", "s", 1, 5e-6, False)]
    after = [
        OperatorRun("QLinearConv", "c", 0, 40e-6, True),
        OperatorRun("QuantizeLinear", "q", None, 15e-6, False),
        OperatorRun("Softmax", "s", 1, 4e-6, False),
    ]
    told = [str(item) for item in shifts(before, after)]
    assert told == ["QuantizeLinear +15 µs (new)", "Conv 30 -> 40 µs", "Softmax 5 -> 4 µs"]


def test_an_int8_operator_without_a_node_stands_for_one_that_is_not_seen() -> None:
    runs = [OperatorRun("QLinearConv", "", None, 1e-6, True), OperatorRun("Conv", "b", 5, 1e-6, False)]
    missing, ran = ran_as_meant({2: "a", 5: "b"}, runs)
    assert missing == ("b",)
    assert len(ran) == 1


def test_an_engine_that_does_not_tell_is_said(tiny: Case) -> None:
    assert operator_runs(tiny.model, one(tiny), runtime="another") is None


def test_rows_that_do_not_fit_are_an_error_of_ours(tiny: Case) -> None:
    with pytest.raises(ModelError, match="cannot run the model"):
        operator_runs(tiny.model, {"x": np.zeros((1, 3), np.float32)})


@pytest.mark.serial
def test_another_engine_is_judged_by_the_same_evidence(tiny: Case) -> None:
    pytest.importorskip("openvino")
    found = judge(
        tiny.model, tiny.model, tiny.held, metric="accuracy", margin=0.02, budget=0.4,
        candidate_runtime=OpenVinoRuntime(),
    )  # fmt: skip
    # For so small a model its call costs more than all of onnxruntime's work.
    assert not found.accepted
    assert found.speedup.high is not None and found.speedup.high < 1
    outcome = compress(
        tiny.model, [], tiny.calibration, tiny.held, metric="accuracy", margin=0.02, engines=["openvino"],
        budget=0.4,
    )  # fmt: skip
    assert [name for name, _ in outcome.judgements] == ["float@openvino"]
    assert (outcome.kept, outcome.runtime) == ("float", "onnxruntime")


def test_openvino_tells_what_ran_in_int8(pictures: Case) -> None:
    pytest.importorskip("openvino")
    quantized = StaticInt8("u8").apply(pictures.model, pictures.calibration).model
    runs = operator_runs(quantized, one(pictures), runtime="openvino", repeats=2)
    assert runs is not None
    assert sorted(run.family for run in runs if run.int8) == ["Conv", "Gemm/MatMul"]
    meant = meant_int8(onnx.ModelProto.FromString(quantized.onnx))
    assert ran_as_meant(meant, runs)[0] == ()


def test_another_type_of_float_stays_what_it_is(nets: Any) -> None:
    node = helper.make_node("Cast", ["x"], ["prediction"], to=TensorProto.FLOAT)
    data = nets.graph_bytes([node], {}, [nets.tensor_input("x", [1])], "prediction", 1)
    model = read_model(data, task="regression")
    runs = operator_runs(model, {"x": np.zeros((1, 1), np.float32)}, repeats=1)
    assert runs is not None and not any(run.int8 for run in runs)
