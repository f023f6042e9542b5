"""Pruning: exact shares, N of M, and graphs that really shrink and answer as the silenced ones."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from onnx import TensorProto, helper

from modelyard.compress.passes.layers import array_of
from modelyard.compress.passes.proof import same_answers
from modelyard.compress.passes.prune import MagnitudePrune
from modelyard.compress.passes.prune_structured import StructuredPrune
from modelyard.compress.prune_dims import Axis, Dims
from modelyard.compress.prune_mask import SCOPES, cubic, fractions, lamp_scores, n_of_m, smallest
from modelyard.core.errors import CompressError
from modelyard.core.spec import Tensors
from modelyard.model.model import Model
from modelyard.model.onnx_runtime import OnnxRuntime
from modelyard.model.predict import predict
from modelyard.model.reader import read_model

Case: TypeAlias = Any
Array: TypeAlias = np.ndarray[Any, Any]


def weights(model: Model) -> dict[str, Array]:
    proto = onnx.ModelProto.FromString(model.onnx)
    return {item.name: array_of(item) for item in proto.graph.initializer}


@given(
    npst.arrays(np.float32, st.integers(1, 200), elements=st.floats(-5, 5, width=32)),
    st.floats(0, 1),
)
@settings(max_examples=60, deadline=None)
def test_exactly_the_smallest_go(values: Array, part: float) -> None:
    mask = smallest(values, part)
    assert int((~mask).sum()) == round(part * len(values))
    if mask.any() and not mask.all():
        assert np.abs(values[~mask]).max() <= np.abs(values[mask]).min()


@given(
    npst.arrays(
        np.float32, st.tuples(st.integers(1, 30), st.integers(1, 5)), elements=st.floats(-5, 5, width=32)
    ),
    st.integers(1, 4),
    st.integers(1, 4),
)
@settings(max_examples=60, deadline=None)
def test_n_of_every_m_stay_and_they_are_the_largest(matrix: Array, kept: int, more: int) -> None:
    of = kept + more
    mask = n_of_m(matrix, kept, of)
    for start in range(0, len(matrix), of):
        group, held = np.abs(matrix[start : start + of]), mask[start : start + of]
        assert (held.sum(axis=0) == min(kept, len(group))).all()
        for column in range(matrix.shape[1]):
            stays, goes = group[held[:, column], column], group[~held[:, column], column]
            assert not len(goes) or goes.max() <= stays.min()


def test_one_threshold_spares_the_small_layer_that_matters() -> None:
    rng = np.random.default_rng(0)
    shares = fractions([rng.normal(size=(50, 50)) * 1e-3, rng.normal(size=(50, 50))], 0.5, "lamp")
    assert shares == pytest.approx([0.5, 0.5], abs=0.03)
    assert max(fractions([np.full((4, 4), 1e-9), rng.normal(size=(4, 4))], 0.9, "global")) <= 1 - 1 / 16


@given(
    st.lists(st.tuples(st.integers(2, 30), st.integers(2, 30)), min_size=2, max_size=4),
    st.floats(0.05, 0.95),
    st.sampled_from(SCOPES),
    st.integers(0, 99),
)
@settings(max_examples=60, deadline=None)
def test_every_scope_gives_up_the_share_that_is_asked_for(
    shapes: list[tuple[int, int]], part: float, scope: str, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    matrices = [rng.normal(size=shape) * rng.uniform(0.5, 2) for shape in shapes]
    shares = fractions(matrices, part, scope)
    sizes = np.array([matrix.size for matrix in matrices])
    gone = np.round(np.array(shares) * sizes)
    assert (gone < sizes).all()
    kept = sizes.sum() - gone.sum()
    # What the guard of each layer keeps may come on top.
    spared = sum(max(1.0, 0.02 * size) for size in sizes)
    assert (1 - part) * sizes.sum() - 2 <= kept <= (1 - part) * sizes.sum() + 2 + spared
    masks = [smallest(matrix, share) for matrix, share in zip(matrices, shares, strict=True)]
    free = [
        place for place, share in enumerate(shares) if 0 < share < 0.97 and sizes[place] * (1 - share) > 2
    ]
    if scope == "global" and len(free) > 1:
        highest = max(np.abs(matrices[place][~masks[place]]).max() for place in free)
        assert highest <= min(np.abs(matrices[place][masks[place]]).min() for place in free) + 1e-12
    if scope == "lamp":
        scaled = fractions([matrix * 10.0**place for place, matrix in enumerate(matrices)], part, scope)
        assert scaled == pytest.approx(shares, abs=1e-9)


def test_lamp_scores_are_the_papers_formula() -> None:
    values = np.random.default_rng(0).normal(size=(5, 7))
    squares = np.square(values)
    plain = np.array([value / squares[squares >= value].sum() for value in squares.ravel()]).reshape(5, 7)
    np.testing.assert_allclose(lamp_scores(values), plain, rtol=1e-12)
    assert lamp_scores(np.zeros((2, 3))).tolist() == [[0.0] * 3] * 2


def test_a_small_first_layer_is_spared_by_all_but_the_same_share_of_each() -> None:
    """Weights as training leaves them: within 1 over the root of the inputs, so few large ones come first."""
    rng = np.random.default_rng(1)
    sizes = ((9, 16), (1568, 128), (128, 10))
    matrices = [rng.uniform(-1, 1, size=size) / np.sqrt(size[0]) for size in sizes]
    lost = {scope: fractions(matrices, 0.8, scope) for scope in SCOPES}
    assert lost["layer"] == [0.8, 0.8, 0.8]
    for scope in ("lamp", "global"):
        assert lost[scope][0] < 0.3 and lost[scope][2] < 0.6 and lost[scope][1] > 0.8


def test_the_cubic_starts_and_ends_where_it_should() -> None:
    values = [cubic(0.1, 0.9, step, 10) for step in range(11)]
    assert values[0] == pytest.approx(0.1) and values[-1] == pytest.approx(0.9)
    assert all(np.diff(values) >= 0) and all(np.diff(values, 2) <= 1e-9)


@pytest.mark.parametrize("scope", SCOPES)
def test_half_of_all_weights_become_zero_and_shapes_stay(wide: Case, scope: str) -> None:
    found = MagnitudePrune(0.5, scope=scope).apply(wide.model, wide.calibration)
    before, after = weights(wide.model), weights(found.model)
    assert {name: array.shape for name, array in before.items()} == {n: a.shape for n, a in after.items()}
    every = np.concatenate([array.ravel() for array in after.values() if array.ndim > 1])
    assert (every == 0).mean() == pytest.approx(0.5, abs=0.01)
    assert not np.signbit(every[every == 0]).any()
    assert "50 %" in found.notes[0]


def test_two_of_four_along_the_inputs_of_convolutions_too(pictures: Case) -> None:
    found = MagnitudePrune(pattern="2:4").apply(pictures.model, pictures.calibration)
    for array in weights(found.model).values():
        if array.ndim > 1:
            inputs = array.reshape(len(array), -1).T if array.ndim == 4 else array
            for start in range(0, len(inputs) - 3, 4):
                assert ((inputs[start : start + 4] != 0).sum(axis=0) <= 2).all()


@pytest.mark.parametrize("pattern", ["4:2", "2:2", "0:4", "half", "2:4:8", ""])
def test_impossible_patterns_are_told(pattern: str) -> None:
    with pytest.raises(CompressError, match="pattern is wrong"):
        MagnitudePrune(pattern=pattern)


# Structured


def answers(model: Model, rows: Tensors) -> Array:
    return predict(OnnxRuntime().load(model), rows)


def residual(nets: Any) -> tuple[Model, Tensors]:
    """Two branches that are added, a depthwise convolution, a batch norm, a flatten and a reshape."""
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("Conv", ["x", "w0", "b0"], ["c0"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c0"], ["r0"]),
        helper.make_node("Conv", ["r0", "w1"], ["c1"], pads=[1, 1, 1, 1]),
        helper.make_node("BatchNormalization", ["c1", "scale", "shift", "mean", "variance"], ["n1"]),
        helper.make_node("LeakyRelu", ["n1"], ["l1"]),
        helper.make_node("Conv", ["l1", "w2", "b2"], ["c2"], pads=[1, 1, 1, 1]),
        helper.make_node("Add", ["r0", "c2"], ["a2"]),
        helper.make_node("Conv", ["a2", "w3", "b3"], ["c3"], group=12, pads=[1, 1, 1, 1]),
        helper.make_node("Mul", ["c3", "per_channel"], ["m3"]),
        helper.make_node("MaxPool", ["m3"], ["p3"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Reshape", ["p3", "flat"], ["f3"]),
        helper.make_node("Gemm", ["f3", "w4", "b4"], ["g4"], transB=1),
        helper.make_node("Relu", ["g4"], ["r4"]),
        helper.make_node("MatMul", ["r4", "w5"], ["l"]),
        helper.make_node("Softmax", ["l"], ["probabilities"], axis=1),
    ]
    normal = {"w0": (12, 2, 3, 3), "b0": (12,), "w1": (20, 12, 3, 3), "w2": (12, 20, 3, 3), "b2": (12,)}
    normal |= {"w3": (12, 1, 3, 3), "b3": (12,), "per_channel": (1, 12, 1, 1), "w4": (30, 48), "b4": (30,)}
    normal |= {"w5": (30, 10), "scale": (20,), "shift": (20,), "mean": (20,)}
    constants: dict[str, Array] = {
        name: (rng.normal(size=shape) * 0.3).astype(np.float32) for name, shape in normal.items()
    }
    constants["variance"] = rng.uniform(0.5, 2, 20).astype(np.float32)
    constants["flat"] = np.array([-1, 48], np.int64)
    data = nets.graph_bytes(nodes, constants, [nets.tensor_input("x", [2, 4, 4])])
    rows = {"x": rng.normal(size=(50, 2, 4, 4)).astype(np.float32)}
    return read_model(data, task="classification", labels=nets.labels), rows


def test_channels_that_are_added_shrink_together(nets: Any) -> None:
    model, rows = residual(nets)
    found = StructuredPrune(0.5).apply(model, rows)
    after = {array.shape for array in weights(found.model).values()}
    # 12 channels through the addition and the depthwise convolution, 20 between, 30 hidden units.
    assert {
        (6, 2, 3, 3),
        (10, 6, 3, 3),
        (6, 10, 3, 3),
        (6, 1, 3, 3),
        (15, 24),
        (15, 10),
    } <= after
    assert found.notes[0].startswith("3 dimensions shrink")
    assert np.isfinite(answers(found.model, rows)).all()
    assert found.model.size < 0.45 * model.size


def test_units_that_do_nothing_go_first_and_nothing_changes(nets: Any) -> None:
    """The pruned graph is the given one exactly, where what leaves was silent."""
    model, rows = residual(nets)
    proto = onnx.ModelProto.FromString(model.onnx)
    silent = [1, 3, 4, 8, 9, 11]
    for item in proto.graph.initializer:
        if item.name in ("w1", "w4", "w2", "w3", "w0", "b0", "b2"):
            values = array_of(item)
            if item.name == "w1":
                values[:, silent] = 0
            elif item.name == "w4":
                values.reshape(30, 12, 4)[:, silent] = 0
            item.CopyFrom(onnx.numpy_helper.from_array(values, item.name))
    quiet = read_model(proto.SerializeToString(), task=model.task, labels=model.labels)
    found = StructuredPrune(0.5, units="channels").apply(quiet, rows)
    shapes = {array.shape for array in weights(found.model).values()}
    assert (6, 2, 3, 3) in shapes
    only = onnx.ModelProto.FromString(found.model.onnx)
    kept = next(array_of(item) for item in only.graph.initializer if item.dims == [6, 2, 3, 3])
    first = weights(quiet)["w0"]
    places = [int(np.flatnonzero((first == channel).all(axis=(1, 2, 3)))[0]) for channel in kept]
    assert not set(places) & set(silent)


def test_what_stays_is_a_multiple(nets: Any) -> None:
    model, rows = residual(nets)
    found = StructuredPrune(0.7, multiple=4).apply(model, rows)
    shapes = {array.shape for array in weights(found.model).values()}
    assert (4, 2, 3, 3) in shapes and (8, 4, 3, 3) in shapes


def attention(nets: Any, heads: int = 4, width: int = 6) -> tuple[Model, Tensors]:
    rng = np.random.default_rng(0)
    d = heads * width
    nodes = [helper.make_node("MatMul", ["x", "we"], ["e"])]
    for name, turn in (("q", [0, 2, 1, 3]), ("k", [0, 2, 3, 1]), ("v", [0, 2, 1, 3])):
        nodes += [
            helper.make_node("MatMul", ["e", f"w{name}"], [f"{name}0"]),
            helper.make_node("Add", [f"{name}0", f"b{name}"], [f"{name}1"]),
            helper.make_node("Reshape", [f"{name}1", "split"], [f"{name}2"]),
            helper.make_node("Transpose", [f"{name}2"], [f"{name}3"], perm=turn),
        ]
    nodes += [
        helper.make_node("MatMul", ["q3", "k3"], ["s0"]),
        helper.make_node("Mul", ["s0", "root"], ["s1"]),
        helper.make_node("Softmax", ["s1"], ["s2"], axis=-1),
        helper.make_node("MatMul", ["s2", "v3"], ["a0"]),
        helper.make_node("Transpose", ["a0"], ["a1"], perm=[0, 2, 1, 3]),
        helper.make_node("Reshape", ["a1", "join"], ["a2"]),
        helper.make_node("MatMul", ["a2", "wo"], ["o"]),
        helper.make_node("Add", ["e", "o"], ["y"]),
        helper.make_node("ReduceMean", ["y"], ["m"], axes=[1], keepdims=0),
        helper.make_node("Gemm", ["m", "wl"], ["l"]),
        helper.make_node("Softmax", ["l"], ["probabilities"], axis=1),
    ]
    shapes = {"we": (5, d), "wq": (d, d), "wk": (d, d), "wv": (d, d), "wo": (d, d), "wl": (d, 10)}
    shapes |= {"bq": (d,), "bk": (d,), "bv": (d,)}
    constants: dict[str, Array] = {
        name: (rng.normal(size=shape) * 0.4).astype(np.float32) for name, shape in shapes.items()
    }
    constants |= {
        "root": np.float32(width**-0.5), "split": np.array([-1, 7, heads, width], np.int64),
        "join": np.array([-1, 7, d], np.int64),
    }  # fmt: skip
    data = nets.graph_bytes(nodes, constants, [nets.tensor_input("x", [7, 5])])
    rows = {"x": rng.normal(size=(40, 7, 5)).astype(np.float32)}
    return read_model(data, task="classification", labels=nets.labels), rows


def test_whole_heads_leave(nets: Any) -> None:
    model, rows = attention(nets)
    found = StructuredPrune(0.5, units="heads").apply(model, rows)
    assert any("4 -> 2 heads" in note for note in found.notes)
    after = weights(found.model)
    shapes = sorted(array.shape for array in after.values() if array.ndim == 2)
    assert shapes.count((24, 12)) == 3 and shapes.count((12, 24)) == 1
    assert any(array.tolist() == [-1, 7, 2, 6] for array in after.values() if array.dtype == np.int64)
    assert answers(found.model, rows).shape == (40, 10)


def test_with_heads_the_residual_stream_may_shrink_too(nets: Any) -> None:
    model, rows = attention(nets)
    found = StructuredPrune(0.5).apply(model, rows)
    shapes = [array.shape for array in weights(found.model).values()]
    assert (5, 12) in shapes and (12, 10) in shapes and shapes.count((12, 12)) == 4


def test_what_is_not_followed_keeps_its_size_and_is_said(nets: Any) -> None:
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("Gemm", ["x", "w0"], ["h0"]),
        helper.make_node("CumSum", ["h0", "one"], ["s0"]),
        helper.make_node("Gemm", ["s0", "w1"], ["h1"]),
        helper.make_node("Relu", ["h1"], ["r1"]),
        helper.make_node("Gemm", ["r1", "w2"], ["l"]),
        helper.make_node("Softmax", ["l"], ["probabilities"], axis=1),
    ]
    shapes = {"w0": (64, 20), "w1": (20, 16), "w2": (16, 10)}
    constants: dict[str, Array] = {n: rng.normal(size=s).astype(np.float32) for n, s in shapes.items()}
    constants["one"] = np.array(1, np.int64)
    data = nets.graph_bytes(nodes, constants, [nets.tensor_input("x", [64])])
    model = read_model(data, task="classification", labels=nets.labels)
    found = StructuredPrune(0.5).apply(model, {"x": rng.normal(size=(30, 64)).astype(np.float32)})
    assert any("'h0'" in note and "CumSum" in note for note in found.notes)
    assert sorted(a.shape for a in weights(found.model).values() if a.ndim == 2) == [
        (8, 10),
        (20, 8),
        (64, 20),
    ]


def test_a_graph_that_cannot_shrink_says_why(nets: Any, tiny: Case) -> None:
    node = [
        helper.make_node("Gemm", ["x", "w"], ["l"]),
        helper.make_node("Softmax", ["l"], ["probabilities"], axis=1),
    ]
    weight = {"w": np.random.default_rng(0).normal(size=(64, 10)).astype(np.float32)}
    data = nets.graph_bytes(node, weight, [nets.tensor_input("x", [64])])
    model = read_model(data, task="classification", labels=nets.labels)
    with pytest.raises(CompressError, match="no dimension can shrink"):
        StructuredPrune().apply(model, tiny.calibration)


def test_a_rewrite_that_answers_otherwise_is_never_returned(tiny: Case, nets: Any) -> None:
    other = nets.mlp(25).model
    with pytest.raises(CompressError, match="answers otherwise"):
        same_answers(tiny.model, other, tiny.calibration)
    assert same_answers(tiny.model, tiny.model, tiny.calibration) == 0.0


def test_dimensions_of_another_make_are_frozen() -> None:
    dims = Dims()
    fine, coarse = dims.new(24), dims.new(5)
    assert not dims.unite(Axis(fine, 1), Axis(coarse, 1))
    assert "another make" in dims.why_frozen(fine)
    columns = dims.new(24)
    assert dims.coarsen(Axis(columns, 2), 5) is None
    heads = dims.coarsen(Axis(dims.new(24), 2), 4)
    assert heads is not None and dims.size(heads) == 4


def test_text_beside_numbers_is_no_obstacle(nets: Any) -> None:
    nodes = [
        helper.make_node(
            "LabelEncoder", ["colour"], ["code"], domain="ai.onnx.ml",
            keys_strings=["red", "green"], values_floats=[1.0, 2.0], default_float=0.0,
        ),
        helper.make_node("Concat", ["code", "x"], ["all"], axis=1),
        helper.make_node("MatMul", ["all", "w"], ["h"]),
        helper.make_node("Tanh", ["h"], ["t"]),
        helper.make_node("MatMul", ["t", "v"], ["prediction"]),
    ]  # fmt: skip
    inputs = [nets.tensor_input("colour", [1], TensorProto.STRING), nets.tensor_input("x", [4])]
    rng = np.random.default_rng(0)
    constants = {n: rng.normal(size=s).astype(np.float32) for n, s in {"w": (5, 12), "v": (12, 1)}.items()}
    model = read_model(nets.graph_bytes(nodes, constants, inputs, "prediction", 1), task="regression")
    rows: Tensors = {
        "colour": rng.choice(np.array(["red", "green", ""], dtype=object), size=(30, 1)),
        "x": rng.normal(size=(30, 4)).astype(np.float32),
    }
    found = StructuredPrune(0.5).apply(model, rows)
    assert sorted(array.shape for array in weights(found.model).values()) == [(5, 6), (6, 1)]
