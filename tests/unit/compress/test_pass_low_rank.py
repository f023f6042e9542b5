"""Low-rank factors: the error is exactly what was left out, and the graphs are equal at full energy."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from modelyard.compress.lowrank_factors import rank_for, separable, svd_factors, tucker2
from modelyard.compress.passes.low_rank import LowRank
from modelyard.core.errors import CompressError
from modelyard.model.model import Model
from modelyard.model.onnx_runtime import OnnxRuntime
from modelyard.model.predict import predict
from modelyard.model.reader import read_model

Case: TypeAlias = Any
Array: TypeAlias = np.ndarray[Any, Any]


@given(st.integers(2, 20), st.integers(2, 20), st.floats(0.05, 0.999), st.integers(0, 99))
@settings(max_examples=50, deadline=None)
def test_the_error_is_the_energy_left_out(rows: int, columns: int, energy: float, seed: int) -> None:
    matrix = np.random.default_rng(seed).normal(size=(rows, columns)).astype(np.float32)
    first, second = svd_factors(matrix, energy)
    singular = np.linalg.svd(matrix.astype(np.float64), compute_uv=False)
    rank = rank_for(singular, energy)
    assert first.shape == (rows, rank) and second.shape == (rank, columns)
    left_out = float(np.square(singular[rank:]).sum())
    error = float(np.square(matrix - first.astype(np.float64) @ second).sum())
    assert error == pytest.approx(left_out, abs=1e-4)
    assert left_out <= (1 - energy) * np.square(singular).sum() + 1e-9
    # One rank less would have left out too much.
    assert (
        rank == 1 or np.square(singular[rank - 1 :]).sum() > (1 - energy) * np.square(singular).sum() - 1e-9
    )


@given(st.integers(2, 8), st.integers(2, 8), st.floats(0.3, 0.99), st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_tucker_keeps_within_its_bound_and_beats_plain_hosvd(
    out: int, wide: int, energy: float, seed: int
) -> None:
    kernel = np.random.default_rng(seed).normal(size=(out, wide, 3, 3)).astype(np.float32)
    errors = []
    for rounds in (0, 10):
        outer, core, inner = tucker2(kernel, energy, rounds=rounds)
        back = np.einsum("op,prxy,ri->oixy", outer, core, inner)
        errors.append(float(np.square(kernel - back).sum()))
    whole = float(np.square(kernel).sum())
    assert errors[0] <= 2 * (1 - energy) * whole + 1e-4
    assert errors[1] <= errors[0] + 1e-4


def test_separable_is_the_best_rank_one_of_each_input_channel() -> None:
    kernel = np.random.default_rng(0).normal(size=(6, 4, 3, 3)).astype(np.float32)
    depthwise, pointwise = separable(kernel)
    back = pointwise[:, :, None, None] * depthwise[None]
    for channel in range(4):
        singular = np.linalg.svd(kernel[:, channel].reshape(6, 9), compute_uv=False)
        error = float(np.square(kernel[:, channel] - back[:, channel]).sum())
        assert error == pytest.approx(float(np.square(singular[1:]).sum()), rel=1e-4)
    again = separable(back)
    np.testing.assert_allclose(again[1][:, :, None, None] * again[0][None], back, atol=1e-5)


def low(rng: np.random.Generator, *shape: int, rank: int) -> Array:
    """A matrix or kernel of that rank along its first two axes."""
    tail = shape[2:]
    core = rng.normal(size=(rank, rank, *tail))
    found = np.einsum(
        "or,rs...,si->oi...", rng.normal(size=(shape[0], rank)), core, rng.normal(size=(rank, shape[1]))
    )
    return (found / np.abs(found).max()).astype(np.float32)


def convolutions(nets: Any) -> tuple[Model, dict[str, Array]]:
    """Strided, padded, dilated, grouped and pointwise convolutions and a scaled Gemm, all of low rank."""
    rng = np.random.default_rng(3)
    nodes = [
        helper.make_node("Conv", ["x", "w0", "b0"], ["c0"], pads=[1, 0, 1, 2], strides=[2, 1]),
        helper.make_node("Relu", ["c0"], ["r0"]),
        helper.make_node("Conv", ["r0", "w1"], ["c1"], pads=[2, 2, 2, 2], dilations=[2, 2]),
        helper.make_node("Conv", ["c1", "w2"], ["c2"], strides=[2, 2]),
        helper.make_node("Conv", ["c2", "w3"], ["c3"], group=2, pads=[1, 1, 1, 1]),
        helper.make_node("GlobalAveragePool", ["c3"], ["g"]),
        helper.make_node("Flatten", ["g"], ["f"], axis=1),
        helper.make_node("Gemm", ["f", "w4", "b4"], ["d"], transB=1, alpha=0.5, beta=2.0),
        helper.make_node("MatMul", ["d", "w5"], ["l"]),
        helper.make_node("Softmax", ["l"], ["probabilities"], axis=1),
    ]
    constants = {
        "w0": low(rng, 24, 12, 3, 3, rank=3), "b0": rng.normal(size=24).astype(np.float32),
        "w1": low(rng, 24, 24, 3, 3, rank=4), "w2": low(rng, 32, 24, 1, 1, rank=5),
        "w3": rng.normal(size=(32, 16, 3, 3)).astype(np.float32) * 0.1,
        "w4": low(rng, 40, 32, rank=6), "b4": rng.normal(size=40).astype(np.float32),
        "w5": low(rng, 40, 10, rank=2),
    }  # fmt: skip
    data = nets.graph_bytes(nodes, constants, [nets.tensor_input("x", [12, 9, 8])])
    rows = {"x": rng.normal(size=(40, 12, 9, 8)).astype(np.float32)}
    return read_model(data, task="classification", labels=nets.labels), rows


def test_graphs_of_low_rank_become_smaller_and_answer_alike(nets: Any) -> None:
    model, rows = convolutions(nets)
    found = LowRank(0.9999).apply(model, rows)
    was, now = (predict(OnnxRuntime().load(item), rows) for item in (model, found.model))
    np.testing.assert_allclose(was, now, atol=2e-3)
    assert found.notes[0] == "5 of 6 layers factorised"
    assert any("stays, it has groups" in note for note in found.notes)
    assert found.model.size < 0.75 * model.size
    kinds = [node.op_type for node in onnx.ModelProto.FromString(found.model.onnx).graph.node]
    assert kinds.count("Conv") == 3 + 3 + 2 + 1
    assert "Gemm" in kinds


@pytest.mark.parametrize(("layers", "changed"), [("matrices", 2), ("convolutions", 3)])
def test_only_some_layers(nets: Any, layers: str, changed: int) -> None:
    model, rows = convolutions(nets)
    assert LowRank(0.999, layers=layers).apply(model, rows).notes[0].startswith(f"{changed} of 6")


def test_sequences_go_through_too(nets: Any) -> None:
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("ReduceMean", ["h"], ["m"], axes=[1], keepdims=0),
        helper.make_node("Softmax", ["m"], ["probabilities"], axis=1),
    ]
    constants = {"w": low(rng, 32, 10, rank=2)}
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", "T", 32])]
    model = read_model(nets.graph_bytes(nodes, constants, inputs), task="classification", labels=nets.labels)
    rows = {"x": rng.normal(size=(20, 5, 32)).astype(np.float32)}
    found = LowRank(0.999).apply(model, rows)
    was, now = (predict(OnnxRuntime().load(item), rows) for item in (model, found.model))
    np.testing.assert_allclose(was, now, atol=1e-4)


def test_a_layer_that_is_not_worth_it_stays(tiny: Case) -> None:
    with pytest.raises(CompressError, match=r"does not apply.*would be left"):
        LowRank(0.9999).apply(tiny.model, tiny.calibration)
