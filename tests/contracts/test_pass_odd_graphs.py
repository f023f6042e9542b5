"""Graphs as other tools write them: a pass returns an equivalent model, or leaves it alone and says so."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from modelyard.compress.catalogue import PASSES
from modelyard.compress.pass_protocol import Compressed, Pass
from modelyard.compress.passes.low_rank import LowRank
from modelyard.compress.passes.prune import MagnitudePrune
from modelyard.compress.passes.prune_structured import StructuredPrune
from modelyard.compress.passes.weight_sharing import WeightSharing
from modelyard.compress.plan_steps import KINDS, step_of
from modelyard.compress.plan_trainable import Bound, Trainable
from modelyard.core.errors import CompressError, ModelyardError
from modelyard.core.spec import Tensors
from modelyard.model.model import Model
from modelyard.model.onnx_runtime import OnnxRuntime
from modelyard.model.predict import predict
from modelyard.model.reader import read_model
from modelyard.train.dataset import Dataset

Nodes = list[Any]
Constants = dict[str, Any]
Case = tuple[Model, Tensors]

ROWS = 24
FAITHFUL: tuple[Pass, ...] = (
    MagnitudePrune(0.01),
    StructuredPrune(0.01),
    WeightSharing(bits=8, conv_bits=8),
    LowRank(0.9999, gain=1.0),
    LowRank(0.9999, gain=1.0, method="cp"),
)
"""Passes set so gently that answers may hardly move: what moves them is a mistake in the rewrite."""
STEPS: tuple[Pass, ...] = (
    *(step for name in PASSES.names() for step in PASSES.get(name)),
    LowRank(0.6, method="cp"), LowRank(rank=2, gain=1.0), *FAITHFUL,
)  # fmt: skip
TRAINED = [name for name, kind in KINDS.items() if kind.trains]
CLOSE = ("graph", "float16", "bfloat16")
ROUGH = ("prune", "low-rank", "share", "int4")


def weights(seed: int, *shape: int) -> Any:
    """Of rank 2 along the first two axes, with some small values: what every pass would like to change."""
    rng = np.random.default_rng(seed)
    flat = rng.normal(size=(shape[0], 2)) @ rng.normal(size=(2, int(np.prod(shape[1:]))))
    return (flat / np.sqrt(np.prod(shape[1:]))).reshape(shape).astype(np.float32)


def made(
    nodes: Nodes, constants: Constants, shape: list[int | None], opset: int, size: list[int], ir: int = 8
) -> Case:
    """A regression from `x`, whose answer is the mean over everything but the rows of the last tensor."""
    last = nodes[-1].output[0]
    if opset >= 18:
        constants = {**constants, "axes_of_mean": np.array([1], np.int64)}
        mean = helper.make_node("ReduceMean", ["flat", "axes_of_mean"], ["prediction"], keepdims=1)
    else:
        mean = helper.make_node("ReduceMean", ["flat"], ["prediction"], axes=[1], keepdims=1)
    nodes = [*nodes, helper.make_node("Flatten", [last], ["flat"], axis=1), mean]
    dims: list[Any] = ["N", *(f"d{place}" if part is None else part for place, part in enumerate(shape))]
    graph = helper.make_graph(
        nodes, "graph", [helper.make_tensor_value_info("x", TensorProto.FLOAT, dims)],
        [helper.make_tensor_value_info("prediction", TensorProto.FLOAT, ["N", 1])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )  # fmt: skip
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir)
    rows = np.random.default_rng(1).normal(size=(ROWS, *size)).astype(np.float32)
    return read_model(proto.SerializeToString(), task="regression"), {"x": rows}


def convolution(opset: int, spatial: int, **attributes: Any) -> Case:
    group = attributes.get("group", 1)
    kernel, size = (3,) * spatial, (7,) * spatial
    node = helper.make_node("Conv", ["x", "w", "b"], ["c"], **attributes)
    more = helper.make_node("Conv", ["r", "v"], ["d"])
    relu = helper.make_node("Relu", ["c"], ["r"])
    constants = {
        "w": weights(0, 12, 6 // group, *kernel), "b": np.arange(12, dtype=np.float32) / 10,
        "v": weights(1, 8, 12, *(1,) * spatial),
    }  # fmt: skip
    return made([node, relu, more], constants, [6, *size], opset, [6, *size])


def transposed_convolution(opset: int) -> Case:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"]),
        helper.make_node("ConvTranspose", ["c", "v"], ["d"], strides=[2, 2]),
    ]
    return made(
        nodes, {"w": weights(0, 8, 6, 3, 3), "v": weights(1, 8, 4, 3, 3)}, [6, 7, 7], opset, [6, 7, 7]
    )


def gemm(opset: int, **attributes: Any) -> Case:
    turned = attributes.get("transB", 0)
    constants = {
        "w": weights(0, 40, 20) if turned else weights(0, 20, 40),
        "b": np.linspace(-1, 1, 40).astype(np.float32), "v": weights(1, 40, 32),
    }  # fmt: skip
    nodes = [
        helper.make_node("Gemm", ["x", "w", "b"], ["h"], **attributes),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "v"], ["m"]),
    ]
    return made(nodes, constants, [20], opset, [20])


def turned_input(opset: int) -> Case:
    """A Gemm that transposes its first input, twice, so that rows stay in front."""
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], perm=[1, 0]),
        helper.make_node("Gemm", ["t", "w"], ["h"], transA=1, alpha=0.5),
        helper.make_node("MatMul", ["h", "v"], ["m"]),
    ]
    return made(nodes, {"w": weights(0, 20, 40), "v": weights(1, 40, 32)}, [20], opset, [20])


def stacked_product(opset: int) -> Case:
    """A MatMul with weights of three axes, and with the constant on the left, beside an ordinary one."""
    nodes = [
        helper.make_node("MatMul", ["x", "w3"], ["a"]),
        helper.make_node("MatMul", ["left", "a"], ["b"]),
        helper.make_node("MatMul", ["b", "w"], ["c"]),
    ]
    constants = {"w3": weights(0, 4, 20, 32), "left": weights(2, 5, 5), "w": weights(1, 32, 32)}
    return made(nodes, constants, [4, 5, 20], opset, [4, 5, 20])


def shared_weights(opset: int) -> Case:
    """One constant read by two layers, and one read by a layer and by an Add."""
    nodes = [
        helper.make_node("Gemm", ["x", "w", "b"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "w"], ["g"]),
        helper.make_node("MatMul", ["g", "v"], ["m"]),
        helper.make_node("MatMul", ["m", "u"], ["o"]),
        helper.make_node("ReduceSum", ["v", "zero"], ["s"], keepdims=0),
        helper.make_node("Add", ["o", "s"], ["q"]),
    ]
    constants = {
        "w": weights(0, 32, 32), "b": np.ones(32, np.float32), "v": weights(1, 32, 40),
        "u": weights(2, 40, 40), "zero": np.array([0], np.int64),
    }  # fmt: skip
    return made(nodes, constants, [32], opset, [32])


def branches(opset: int) -> Case:
    """An If whose branches have layers of their own and read a weight and an activation from outside."""

    def branch(name: str, nodes: Nodes, constants: Constants) -> Any:
        out = [helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.FLOAT, None)]
        items = [numpy_helper.from_array(value, key) for key, value in constants.items()]
        return helper.make_graph(nodes, name, [], out, items)

    yes = branch("yes", [helper.make_node("MatMul", ["h", "w"], ["yes_out"])], {})
    no = branch("no", [helper.make_node("MatMul", ["h", "inner"], ["no_out"])], {"inner": weights(3, 40, 40)})
    nodes = [
        helper.make_node("MatMul", ["x", "v"], ["h"]),
        helper.make_node("ReduceSum", ["x"], ["total"], keepdims=0),
        helper.make_node("Greater", ["total", "none"], ["so"]),
        helper.make_node("If", ["so"], ["i"], then_branch=yes, else_branch=no),
        helper.make_node("MatMul", ["i", "w"], ["m"]),
        helper.make_node("MatMul", ["m", "u"], ["o"]),
    ]
    constants = {"v": weights(0, 20, 40), "w": weights(1, 40, 40), "u": weights(2, 40, 33),
                 "none": np.float32(0)}  # fmt: skip
    return made(nodes, constants, [20], opset, [20])


def loop(opset: int) -> Case:
    """A Loop of three rounds that multiplies by a weight from outside."""
    info = helper.make_tensor_value_info
    body = helper.make_graph(
        [
            helper.make_node("MatMul", ["carried", "w"], ["next"]),
            helper.make_node("Identity", ["go"], ["on"]),
        ],
        "body",
        [
            info("round", TensorProto.INT64, []), info("go", TensorProto.BOOL, []),
            info("carried", TensorProto.FLOAT, ["N", 40]),
        ],
        [info("on", TensorProto.BOOL, []), info("next", TensorProto.FLOAT, ["N", 40])],
    )  # fmt: skip
    nodes = [
        helper.make_node("MatMul", ["x", "v"], ["h"]),
        helper.make_node("Loop", ["three", "yes", "h"], ["l"], body=body),
        helper.make_node("MatMul", ["l", "w"], ["m"]),
        helper.make_node("MatMul", ["m", "u"], ["o"]),
    ]
    constants = {"v": weights(0, 20, 40), "w": weights(1, 40, 40), "u": weights(2, 40, 33),
                 "three": np.int64(3), "yes": np.bool_(True)}  # fmt: skip
    return made(nodes, constants, [20], opset, [20])


def constant_nodes(opset: int) -> Case:
    """Weights that Constant nodes hold, one of them behind an Identity and a Transpose."""
    nodes = [
        helper.make_node("Constant", [], ["w"], value=numpy_helper.from_array(weights(0, 20, 40))),
        helper.make_node("Constant", [], ["t"], value=numpy_helper.from_array(weights(1, 33, 40))),
        helper.make_node("Identity", ["t"], ["i"]),
        helper.make_node("Transpose", ["i"], ["v"], perm=[1, 0]),
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "v"], ["m"]),
    ]
    return made(nodes, {}, [20], opset, [20])


def any_size(opset: int) -> Case:
    """A picture of any size, with a fixed one behind it."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("GlobalAveragePool", ["r"], ["g"]),
        helper.make_node("Conv", ["g", "v"], ["d"]),
    ]
    constants = {"w": weights(0, 12, 6, 3, 3), "v": weights(1, 16, 12, 1, 1)}
    return made(nodes, constants, [6, None, None], opset, [6, 5, 8])


def degenerate(opset: int) -> Case:
    """A layer of zeros, one of a single input and one of a single output."""
    nodes = [
        helper.make_node("Gemm", ["x", "w"], ["h"]),
        helper.make_node("Gemm", ["h", "zeros", "b"], ["z"]),
        helper.make_node("Add", ["h", "z"], ["a"]),
        helper.make_node("MatMul", ["a", "one"], ["o"]),
        helper.make_node("MatMul", ["o", "wide"], ["m"]),
    ]
    constants = {
        "w": weights(0, 20, 40), "zeros": np.zeros((40, 40), np.float32), "b": np.ones(1, np.float32),
        "one": weights(1, 40, 1), "wide": weights(2, 1, 40),
    }  # fmt: skip
    return made(nodes, constants, [20], opset, [20])


CASES: dict[str, Callable[[], Case]] = {
    "conv 1-D, opset 11": lambda: convolution(11, 1, pads=[1, 1], strides=[2]),
    "conv 2-D, opset 22": lambda: convolution(22, 2, auto_pad="SAME_UPPER", strides=[2, 1]),
    "conv 3-D": lambda: convolution(17, 3, pads=[1, 0, 1, 1, 1, 0]),
    "conv dilated": lambda: convolution(13, 2, dilations=[2, 1], pads=[2, 1, 2, 1]),
    "conv in groups": lambda: convolution(17, 2, group=3),
    "conv depthwise": lambda: convolution(17, 2, group=6, pads=[1, 1, 1, 1]),
    "conv transposed": lambda: transposed_convolution(17),
    "gemm alpha beta, opset 11": lambda: gemm(11, alpha=0.5, beta=2.0),
    "gemm transB, opset 22": lambda: gemm(22, transB=1, alpha=2.0, beta=0.0),
    "gemm transA": lambda: turned_input(17),
    "matmul of three axes": lambda: stacked_product(17),
    "shared weights": lambda: shared_weights(17),
    "if": lambda: branches(17),
    "loop": lambda: loop(17),
    "constant nodes, opset 11": lambda: constant_nodes(11),
    "constant nodes, opset 22": lambda: constant_nodes(22),
    "any size": lambda: any_size(17),
    "degenerate": lambda: degenerate(17),
}


def applied(step: Pass, model: Model, rows: Tensors) -> Compressed | CompressError:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            return step.apply(model, rows)
        except CompressError as error:
            assert error.what
            return error


def moved(model: Model, found: Model, rows: Tensors) -> float:
    """By how much the answers differ, as a share of their spread."""
    was, now = (predict(OnnxRuntime().load(item), rows) for item in (model, found))
    assert np.isfinite(now).all() and now.shape == was.shape
    return float(np.abs(now - was).max()) / float(np.ptp(was))


@pytest.mark.parametrize("case", list(CASES))
def test_every_pass_gives_an_equivalent_graph_or_says_that_it_leaves_it(case: str) -> None:
    model, rows = CASES[case]()
    kept, wrong = model.onnx, []
    for step in STEPS:
        found = applied(step, model, rows)
        assert model.onnx == kept
        if isinstance(found, CompressError):
            continue
        assert found.notes
        apart = moved(model, found.model, rows)
        bound = 0.06 if step in FAITHFUL or step.name.startswith(CLOSE) else 0.3
        if apart > bound and (step in FAITHFUL or not step.name.startswith(ROUGH)):
            wrong.append(f"{step.name} moves answers by {apart:.3g} of their spread")
        # The same pass again, on what it made: done once more, or refused in words.
        again = applied(step, found.model, rows)
        if isinstance(again, Compressed):
            moved(model, again.model, rows)
    assert not wrong


def short(name: str) -> Any:
    """The pass of that name with one epoch of training."""
    return step_of(name, {"epochs": 1} if "epochs" in KINDS[name].options() else {})


def trainable(model: Model, rows: Tensors) -> Trainable:
    said = predict(OnnxRuntime().load(model), rows)[:, 0].astype(np.float64)
    first, last = (
        {name: values[part] for name, values in rows.items()} for part in (slice(16), slice(16, None))
    )
    return Trainable(None, {}, Dataset("regression", (), first, said[:16], last, said[16:]))


@pytest.mark.parametrize("case", list(CASES))
def test_what_trains_gives_a_sound_graph_or_says_that_it_leaves_it(case: str) -> None:
    model, rows = CASES[case]()
    for name in TRAINED:
        step = Bound(short(name), trainable(model, rows))
        found = applied(step, model, rows)
        if isinstance(found, Compressed):
            assert found.notes
            moved(model, found.model, rows)


def _sometimes_missing(rows: Tensors) -> Tensors:
    values = rows["x"].copy()
    values[::3] = np.nan
    return {"x": values}


BAD_ROWS: dict[str, Callable[[Tensors], Tensors]] = {
    "none": lambda rows: {},
    "no rows": lambda rows: {"x": rows["x"][:0]},
    "another name": lambda rows: {"y": rows["x"]},
    "another shape": lambda rows: {"x": rows["x"][:, :-1]},
    "another type": lambda rows: {"x": rows["x"].astype(np.float64)},
    "one more": lambda rows: {**rows, "y": rows["x"]},
    "all NaN": lambda rows: {"x": np.full_like(rows["x"], np.nan)},
    "some NaN": _sometimes_missing,
    "infinite": lambda rows: {"x": np.full_like(rows["x"], np.inf)},
    "text": lambda rows: {"x": rows["x"].astype(object)},
}  # fmt: skip


@pytest.mark.parametrize("rows", list(BAD_ROWS))
def test_rows_that_do_not_fit_are_told_or_not_needed(rows: str) -> None:
    model, good = gemm(17)
    bad = BAD_ROWS[rows](good)
    for step in STEPS:
        found = applied(step, model, bad)
        if isinstance(found, Compressed):
            assert np.isfinite(predict(OnnxRuntime().load(found.model), good)).all()
        if step.name.startswith("int8-static") and rows != "some NaN":
            assert isinstance(found, CompressError)
            assert any(word in str(found) for word in ("calibrat", "fit", "rows"))
    for name in TRAINED:
        applied(Bound(short(name), trainable(model, good)), model, bad)


@pytest.mark.parametrize("rows", ["all NaN", "some NaN", "infinite"])
@pytest.mark.parametrize("name", TRAINED)
def test_training_rows_without_numbers_are_told(name: str, rows: str) -> None:
    model, good = gemm(17)
    bad = BAD_ROWS[rows](good)
    said = np.zeros(ROWS)
    data = Dataset("regression", (), bad, np.arange(ROWS, dtype=float), good, said + np.arange(ROWS))
    try:
        found = Bound(short(name), Trainable(None, {}, data)).apply(model, good)
    except ModelyardError as error:
        assert error.what
        return
    assert np.isfinite(predict(OnnxRuntime().load(found.model), good)).all()


def test_a_bias_that_a_branch_reads_too_keeps_its_size() -> None:
    """Units leave the layer in front, whose bias an If reads again: without rows no proof would find it."""
    info = helper.make_tensor_value_info
    branch = [
        helper.make_graph(
            [
                helper.make_node("Add", ["b", "total"], [f"{name}_sum"]),
                helper.make_node("ReduceSum", [f"{name}_sum"], [f"{name}_out"], keepdims=0),
            ],
            name, [],
            [info(f"{name}_out", TensorProto.FLOAT, [])],
        )
        for name in ("yes", "no")
    ]  # fmt: skip
    nodes = [
        helper.make_node("Gemm", ["x", "w", "b"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "v"], ["m"]),
        helper.make_node("ReduceSum", ["x"], ["total"], keepdims=0),
        helper.make_node("Greater", ["total", "none"], ["so"]),
        helper.make_node("If", ["so"], ["i"], then_branch=branch[0], else_branch=branch[1]),
        helper.make_node("Add", ["m", "i"], ["a"]),
    ]
    constants = {"w": weights(0, 20, 40), "b": np.arange(40, dtype=np.float32), "v": weights(1, 40, 8),
                 "none": np.float32(0)}  # fmt: skip
    model, rows = made(nodes, constants, [20], 17, [20])
    found = StructuredPrune(0.5).apply(model, {})
    proto = onnx.ModelProto.FromString(found.model.onnx)
    sizes = {tuple(item.dims) for item in proto.graph.initializer if len(item.dims)}
    assert sizes == {(20, 20), (20,), (20, 8), (40,)}
    assert StructuredPrune(0.5).apply(model, rows).model.digest == found.model.digest


def test_a_weight_that_a_branch_reads_too_is_left_alone_and_said() -> None:
    model, rows = branches(17)
    found = MagnitudePrune(0.5).apply(model, rows)
    assert any("its weights are used twice" in note for note in found.notes)
    before, after = (onnx.ModelProto.FromString(item.onnx) for item in (model, found.model))
    kept = [
        next(numpy_helper.to_array(item) for item in proto.graph.initializer if item.name == "w")
        for proto in (before, after)
    ]
    np.testing.assert_array_equal(kept[0], kept[1])
