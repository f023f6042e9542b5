"""Low-rank factors: the error is exactly what was left out, and the graphs are equal at full energy."""

from __future__ import annotations

import dataclasses
import re
from typing import Any, TypeAlias

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from modelyard.compress.inspect.facts import graph_facts
from modelyard.compress.lowrank_cp import Cp, cp, cp_within, full_rank, least_rank
from modelyard.compress.lowrank_factors import rank_for, separable, svd_factors, tucker2
from modelyard.compress.passes.low_rank import LowRank
from modelyard.compress.plan import parse, run_plan
from modelyard.compress.plan_trainable import Trainable
from modelyard.core.errors import CompressError
from modelyard.measure.compare import non_inferior
from modelyard.model.model import Model
from modelyard.model.onnx_runtime import OnnxRuntime
from modelyard.model.predict import predict
from modelyard.model.reader import read_model
from modelyard.train.dataset import Dataset

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


@pytest.mark.parametrize(
    ("shape", "rank"),
    [((16, 12, 3, 3), 4), ((24, 24, 5, 5), 8), ((12, 10, 3, 3, 3), 5), ((5, 4, 3), 1), ((3, 40, 7), 2)],
)
def test_a_kernel_of_low_rank_is_found_again(shape: tuple[int, ...], rank: int) -> None:
    rng = np.random.default_rng(0)
    kernel = Cp(tuple(rng.normal(size=(size, rank)) for size in shape), 0.0).tensor
    found = cp(kernel.astype(np.float32), rank)
    assert found.rank == rank
    assert np.abs(found.tensor - kernel).max() <= 1e-4 * np.abs(kernel).max()
    assert least_rank(kernel, 0.999999) <= rank
    assert cp_within([kernel], 0.999, 30)[0].rank <= rank


@given(st.lists(st.integers(1, 6), min_size=3, max_size=4), st.integers(1, 12), st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_cp_says_its_error_keeps_its_factors_even_and_is_exact_at_full_rank(
    shape: list[int], rank: int, seed: int
) -> None:
    kernel = np.random.default_rng(seed).normal(size=shape)
    whole = float(np.square(kernel).sum())
    found = cp(kernel, rank, sweeps=20, seed=seed)
    error = float(np.square(found.tensor - kernel).sum()) / whole
    assert error == pytest.approx(found.error, abs=1e-6)
    assert error <= 1 + 1e-6
    norms = np.array([np.linalg.norm(factor, axis=0) for factor in found.factors])
    np.testing.assert_allclose(norms, norms[:1].repeat(len(norms), axis=0), rtol=1e-3, atol=1e-6)
    exact = cp(kernel, full_rank(shape))
    np.testing.assert_allclose(exact.tensor, kernel, atol=1e-5 * np.sqrt(whole))


def test_nearly_parallel_components_do_not_blow_up() -> None:
    """a b c + a b' c + ... of border rank: the best fit of rank 2 does not exist, factors would run away."""
    one, two = np.eye(4)[:, 0], np.eye(4)[:, 1]
    terms = ((one, one, two), (one, two, one), (two, one, one))
    kernel = sum(np.einsum("i,j,k->ijk", *term) for term in terms)
    found = cp(np.asarray(kernel), 2, sweeps=500)
    assert all(np.isfinite(factor).all() and np.abs(factor).max() < 10 for factor in found.factors)
    assert found.error < 0.2


def full(nets: Any, kernel: Array, shape: list[int], **attributes: Any) -> tuple[Model, dict[str, Array]]:
    """One convolution with a bias, and a mean over what it answers."""
    rng = np.random.default_rng(5)
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"], **attributes),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("GlobalMaxPool", ["r"], ["g"]),
        helper.make_node("Flatten", ["g"], ["f"], axis=1),
        helper.make_node("Softmax", ["f"], ["probabilities"], axis=1),
    ]
    constants = {"w": kernel, "b": rng.normal(size=10).astype(np.float32)}
    data = nets.graph_bytes(nodes, constants, [nets.tensor_input("x", shape)])
    rows = {"x": rng.normal(size=(20, *[size or 9 for size in shape])).astype(np.float32)}
    return read_model(data, task="classification", labels=nets.labels), rows


WINDOWS: list[tuple[tuple[int, ...], list[int], dict[str, Any]]] = [
    ((10, 8, 5, 5), [8, 9, 8], {"pads": [2, 1, 0, 2], "strides": [2, 1]}),
    ((10, 8, 3, 5), [8, 12, 11], {"dilations": [2, 2], "strides": [1, 3]}),
    ((10, 8, 5, 5), [8, 9, 8], {"auto_pad": "SAME_UPPER", "strides": [2, 2]}),
    ((10, 8, 5, 5), [8, 9, 8], {"auto_pad": "SAME_LOWER"}),
    ((10, 8, 5, 5), [8, 9, 8], {"auto_pad": "VALID"}),
    ((10, 8, 1, 7), [8, 6, 12], {"strides": [2, 2], "pads": [1, 3, 1, 3]}),
    ((10, 6, 7, 7), [12, 9, 9], {"group": 2, "pads": [3, 3, 3, 3]}),
    ((10, 8, 9), [8, 30], {"strides": [2], "pads": [4, 3]}),
    ((10, 6, 3, 3, 3), [6, 5, 6, 7], {"pads": [1, 1, 1, 0, 1, 2], "strides": [1, 2, 1]}),
]  # fmt: skip


@pytest.mark.parametrize(("kernel", "shape", "attributes"), WINDOWS)
@pytest.mark.parametrize("method", ["cp", "tucker"])
def test_chains_move_over_pictures_as_the_convolution_does(
    nets: Any, kernel: tuple[int, ...], shape: list[int], attributes: dict[str, Any], method: str
) -> None:
    rng = np.random.default_rng(7)
    groups = attributes.get("group", 1)
    parts = [
        Cp(tuple(rng.normal(size=(size, 2)) for size in (kernel[0] // groups, *kernel[1:])), 0.0).tensor
        for _ in range(groups)
    ]
    values = (np.concatenate(parts) / 10).astype(np.float32)
    model, rows = full(nets, values, shape, **attributes)
    step = LowRank(method=method, rank=2, gain=1.0)
    if method == "tucker" and groups > 1:
        with pytest.raises(CompressError, match="it has groups"):
            step.apply(model, rows)
        return
    found = step.apply(model, rows)
    was, now = (predict(OnnxRuntime().load(item), rows) for item in (model, found.model))
    np.testing.assert_allclose(was, now, atol=2e-4)
    counted = [graph_facts(item).macs for item in (model, found.model)]
    assert counted[1] < counted[0]
    told = re.search(r"([\d.]+) % (?:of its multiplications )?left", found.notes[1])
    assert told is not None
    assert float(told[1]) == pytest.approx(100 * counted[1] / counted[0], rel=0.02)


def test_cp_at_a_rank_that_is_not_exact_still_answers_closely(nets: Any, pictures: Case) -> None:
    rng = np.random.default_rng(0)
    model, rows = full(nets, 0.3 * low(rng, 10, 12, 5, 5, rank=3), [12, 10, 10], pads=[2, 2, 2, 2])
    loose, close = (LowRank(energy, method="cp").apply(model, rows) for energy in (0.7, 0.99))
    was, far, near = (predict(OnnxRuntime().load(item), rows) for item in (model, loose.model, close.model))
    assert np.abs(near - was).max() < np.abs(far - was).max()
    assert np.abs(near - was).max() < 0.1
    again = LowRank(0.99, method="cp").apply(model, rows)
    assert again.model.digest == close.model.digest


@pytest.mark.parametrize("method", ["cp", "tucker"])
def test_what_would_multiply_more_stays(nets: Any, method: str) -> None:
    """A stride of 3 makes the convolution cheap, and the pointwise one in front of it dear."""
    values = low(np.random.default_rng(0), 10, 40, 3, 3, rank=8)
    model, rows = full(nets, values, [40, 12, 12], strides=[3, 3])
    with pytest.raises(CompressError, match=r"does not apply.*(multiplications would be left|no rank up to)"):
        LowRank(0.99, method=method).apply(model, rows)
    model, rows = full(nets, values, [40, None, None], strides=[1, 1])  # type: ignore[list-item]
    with pytest.raises(CompressError, match="the size of its picture is not known"):
        LowRank(0.99, method=method).apply(model, rows)


def judged(case: Case, rows: slice) -> Trainable:
    data = Dataset(
        "classification", case.model.labels, case.calibration, np.arange(200) % 10,
        {"x": case.held.tensors["x"][rows]}, case.held.targets[rows],
    )  # fmt: skip
    return Trainable(None, {}, data)


def fading(case: Case, weight: str) -> Case:
    """The network with a layer whose singular values fall by a tenth from one to the next."""
    proto = onnx.ModelProto.FromString(case.model.onnx)
    item = next(item for item in proto.graph.initializer if item.name == weight)
    left, singular, right = np.linalg.svd(onnx.numpy_helper.to_array(item), full_matrices=False)
    values = (left * (singular * 0.9 ** np.arange(len(singular)))) @ right
    item.CopyFrom(onnx.numpy_helper.from_array(values.astype(np.float32), weight))
    model = read_model(proto.SerializeToString(), task="classification", labels=case.model.labels)
    return dataclasses.replace(case, model=model)


def test_the_least_rank_that_keeps_quality_is_found(nets: Any) -> None:
    case = fading(nets.mlp(96, 96), "w1")
    rows = case.held.tensors
    # What the network says counts as the truth, so that there is quality to lose.
    said = predict(OnnxRuntime().load(case.model), rows).argmax(axis=1)
    case = dataclasses.replace(case, held=dataclasses.replace(case.held, targets=said))
    trainable, sizes = judged(case, slice(None)), []
    for margin in (0.3, 0.05):
        plan = parse(f"low-rank:gated({margin}, tries=6)")
        found = run_plan(plan, case.model, case.calibration, trainable=trainable)
        was, now = (predict(OnnxRuntime().load(item), rows) for item in (case.model, found.model))
        assert non_inferior("accuracy", said, was, now, margin).passed
        sizes.append(found.model.size)
        tried = {
            float(energy): why for energy, why in re.findall(r"energy ([\d.]+): (.*)", "\n".join(found.notes))
        }
        assert len(tried) == 6
        refused = [energy for energy, why in tried.items() if "not proved" in why]
        accepted = [energy for energy, why in tried.items() if ": proved" in why]
        assert accepted and max(refused) < min(accepted)
    assert sizes[0] < sizes[1] < 0.95 * case.model.size


def test_too_few_rows_prove_no_rank(nets: Any) -> None:
    wide = fading(nets.mlp(96, 96), "w1")
    with pytest.raises(CompressError, match=r"no rank keeps accuracy within 0.01.*equal answers would need"):
        run_plan(parse("low-rank:gated"), wide.model, wide.calibration, trainable=judged(wide, slice(50)))
    with pytest.raises(CompressError, match="needs rows with targets"):
        run_plan(parse("low-rank:gated"), wide.model, wide.calibration)
