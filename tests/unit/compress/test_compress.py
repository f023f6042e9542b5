"""Passes on real graphs: what is kept, what is refused and why, and that the original stays as it was."""

from __future__ import annotations

import logging
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from modelyard.compress import compress as door
from modelyard.compress.catalogue import PASSES
from modelyard.compress.compress import FLOAT, compress
from modelyard.compress.gate import Held
from modelyard.compress.graph_file import silence
from modelyard.compress.pass_protocol import Compressed, Pass
from modelyard.compress.passes.graph import GraphPass
from modelyard.compress.passes.int8_dynamic import DynamicInt8
from modelyard.compress.passes.int8_static import StaticInt8
from modelyard.core.errors import CompressError, ModelyardError
from modelyard.core.names import Plugins
from modelyard.core.spec import Tensors
from modelyard.model.model import Model
from modelyard.model.onnx_runtime import OnnxRuntime
from modelyard.model.predict import predict
from modelyard.model.reader import read_model

Case: TypeAlias = Any
"""A model with rows, from conftest.py."""

ALL = ("graph", "int8-static", "int8-dynamic")


def accuracy(model: Model, held: Held) -> float:
    session = OnnxRuntime().load(model)
    return float((predict(session, held.tensors).argmax(axis=1) == held.targets).mean())


def test_the_networks_of_these_tests_really_work(tiny: Case, wide: Case, pictures: Case) -> None:
    assert accuracy(tiny.model, tiny.held) > 0.75
    assert accuracy(wide.model, wide.held) > 0.95
    assert accuracy(pictures.model, pictures.held) > 0.9


@pytest.mark.serial
def test_int8_is_refused_where_it_is_slower(tiny: Case) -> None:
    before = tiny.model.digest
    found = compress(tiny.model, ALL, tiny.calibration, tiny.held, metric="accuracy", margin=0.05, budget=2.0)
    assert found.kept == FLOAT
    assert found.model is tiny.model
    assert tiny.model.digest == before
    static = dict(found.judgements)["int8-static"]
    assert static.speedup.high is not None and static.speedup.high < 1
    assert "not surely faster" in static.why
    assert static.size_ratio > 1


@pytest.mark.serial
def test_int8_is_accepted_where_it_wins(wide: Case) -> None:
    before = wide.model.digest
    found = compress(wide.model, ALL, wide.calibration, wide.held, metric="accuracy", margin=0.02, budget=3.0)
    assert found.kept in ("int8-static", "int8-static-u8")
    judgement = dict(found.judgements)[found.kept]
    assert judgement.accepted
    assert judgement.speedup.low is not None and judgement.speedup.low > 1
    assert judgement.size_ratio > 3.5
    assert all(item.passed for item in judgement.verdicts)
    assert accuracy(found.model, wide.held) > 0.95
    assert wide.model.digest == before
    assert found.model.signature == wide.model.signature
    assert found.model.labels == wide.model.labels
    # What was accepted is what comes out, and beats the original once more.
    assert "int8: Gemm 3" in found.notes[found.kept]


@pytest.mark.serial
def test_dynamic_int8_wins_where_callers_are_never_mixed(wide: Case) -> None:
    options = {"metric": "accuracy", "margin": 0.02, "budget": 1.0}
    mixed = compress(wide.model, ["int8-dynamic"], wide.calibration, wide.held, **options)
    assert mixed.kept == FLOAT
    assert "depends on the rows beside it" in mixed.judgements[0][1].why
    alone = compress(wide.model, ["int8-dynamic"], wide.calibration, wide.held, mixing=True, **options)
    assert alone.kept == "int8-dynamic"


@pytest.mark.serial
def test_a_small_network_takes_less_than_ten_seconds_in_all(pictures: Case) -> None:
    start = time.perf_counter()
    found = compress(pictures.model, ALL, pictures.calibration, pictures.held, metric="accuracy", margin=0.02)
    assert time.perf_counter() - start < 10
    assert [name for name, _ in found.judgements] == [
        "graph",
        "int8-static",
        "int8-static-u8",
        "int8-dynamic",
    ]


def test_the_graph_pass_fuses_and_drops_what_is_dead(pictures: Case) -> None:
    found = GraphPass().apply(pictures.model, pictures.calibration)
    kinds = [node.op_type for node in onnx.ModelProto.FromString(found.model.onnx).graph.node]
    assert "BatchNormalization" not in kinds
    assert "Sigmoid" not in kinds
    assert "BatchNormalization 1 -> 0" in found.notes
    assert found.notes[0] == "8 nodes became 6"
    rows = pictures.held.tensors
    was, now = (predict(OnnxRuntime().load(model), rows) for model in (pictures.model, found.model))
    np.testing.assert_allclose(was, now, atol=1e-5)


def test_a_graph_without_anything_to_simplify_is_told(tiny: Case) -> None:
    with pytest.raises(CompressError, match="nothing to simplify"):
        GraphPass().apply(tiny.model, tiny.calibration)


def test_inner_graphs_keep_what_they_read(nets: Any, tiny: Case) -> None:
    then = helper.make_graph(
        [helper.make_node("Add", ["w", "w"], ["t"])],
        "then",
        [],
        [helper.make_tensor_value_info("t", TensorProto.FLOAT, [10])],
    )
    other = helper.make_graph(
        [helper.make_node("Identity", ["w"], ["o"])],
        "else",
        [],
        [helper.make_tensor_value_info("o", TensorProto.FLOAT, [10])],
    )
    nodes = [
        helper.make_node("ReduceMax", ["x"], ["m"], keepdims=0),
        helper.make_node("Greater", ["m", "zero"], ["yes"]),
        helper.make_node("If", ["yes"], ["bias"], then_branch=then, else_branch=other),
        helper.make_node("Gemm", ["x", "k", "bias"], ["g"]),
        helper.make_node("Identity", ["g"], ["i"]),
        helper.make_node("Softmax", ["i"], ["probabilities"], axis=1),
    ]
    constants = {
        "w": np.arange(10, dtype=np.float32),
        "zero": np.float32(0),
        "k": np.random.default_rng(0).normal(size=(64, 10)).astype(np.float32),
    }
    data = nets.graph_bytes(nodes, constants, [nets.tensor_input("x", [64])])
    model = read_model(data, task="classification", labels=nets.labels)
    found = GraphPass().apply(model, tiny.calibration)
    rows = tiny.held.tensors
    was, now = (predict(OnnxRuntime().load(item), rows) for item in (model, found.model))
    np.testing.assert_allclose(was, now, atol=1e-6)


def test_trees_are_refused_at_once_and_never_timed(trees: Case) -> None:
    start = time.perf_counter()
    found = compress(trees.model, ALL, trees.calibration, trees.held, metric="mae", margin=0.1)
    assert time.perf_counter() - start < 1
    assert found.kept == FLOAT
    whys = {name: judgement.why for name, judgement in found.judgements}
    assert whys["graph"] == whys["int8-static"] == "does not apply: no Conv, Gemm or MatMul"
    assert whys["int8-dynamic"] == "does not apply: no Gemm or MatMul"
    assert all(judgement.speedup.n == 0 for _, judgement in found.judgements)


def text_model(nets: Any) -> tuple[Model, Tensors]:
    """A category and four numbers into one matrix product, as pipelines with text become."""
    nodes = [
        helper.make_node(
            "LabelEncoder", ["colour"], ["code"], domain="ai.onnx.ml",
            keys_strings=["red", "green"], values_floats=[1.0, 2.0], default_float=0.0,
        ),
        helper.make_node("Concat", ["code", "x"], ["all"], axis=1),
        helper.make_node("MatMul", ["all", "w"], ["prediction"]),
    ]  # fmt: skip
    inputs = [nets.tensor_input("colour", [1], TensorProto.STRING), nets.tensor_input("x", [4])]
    weight = np.random.default_rng(0).normal(size=(5, 1)).astype(np.float32)
    model = read_model(nets.graph_bytes(nodes, {"w": weight}, inputs, "prediction", 1), task="regression")
    rng = np.random.default_rng(1)
    rows: Tensors = {
        "colour": rng.choice(np.array(["red", "green", "blue", ""], dtype=object), size=(300, 1)),
        "x": rng.normal(size=(300, 4)).astype(np.float32),
    }
    return model, rows


@pytest.mark.parametrize(
    "step", [StaticInt8("s8"), StaticInt8("u8"), DynamicInt8()], ids=lambda step: step.name
)
def test_text_inputs_go_through_the_passes(nets: Any, step: Pass) -> None:
    model, rows = text_model(nets)
    found = step.apply(model, rows)
    was, now = (predict(OnnxRuntime().load(item), rows) for item in (model, found.model))
    assert float(np.abs(was - now).max()) < 0.1 * float(np.ptp(was))
    held = Held(rows, was[:, 0].astype(np.float64))
    outcome = compress(model, ["int8-static"], rows, held, metric="mae", margin=0.5, budget=0.2)
    assert outcome.judgements[0][1].verdicts[0].passed, outcome.judgements[0][1].why


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda x: x[:5], "too few rows to calibrate with"),
        (lambda x: x[:0], "too few rows to calibrate with"),
        (lambda x: np.full_like(x, np.nan), "too few rows to calibrate with"),
        (lambda x: x.astype(np.float64), "do not fit input 'x'"),
        (lambda x: x[:, :9], "do not fit input 'x'"),
    ],
)
def test_rows_that_cannot_calibrate_are_told(tiny: Case, change: Any, match: str) -> None:
    with pytest.raises(CompressError, match=match):
        StaticInt8().apply(tiny.model, {"x": change(tiny.calibration["x"])})


def test_rows_by_another_name_are_told(tiny: Case) -> None:
    with pytest.raises(CompressError, match="do not fit the model"):
        StaticInt8().apply(tiny.model, {"y": tiny.calibration["x"]})


def test_rows_with_nan_are_left_out_and_counted(tiny: Case) -> None:
    rows = tiny.calibration["x"].copy()
    rows[7, 3] = np.nan
    rows[9, 0] = np.inf
    assert "2 with NaN or infinity left out" in StaticInt8().apply(tiny.model, {"x": rows}).notes[0]


class Raises:
    name = "raises"

    def apply(self, model: Model, calibration: Tensors) -> Compressed:
        raise RuntimeError("the tool broke\nwith a long trace")


class Same:
    name = "same"

    def apply(self, model: Model, calibration: Tensors) -> Compressed:
        return Compressed(model)


class Poison:
    name = "poison"

    def apply(self, model: Model, calibration: Tensors) -> Compressed:
        proto = onnx.ModelProto.FromString(model.onnx)
        weights = next(item for item in proto.graph.initializer if item.name == "wl")
        weights.raw_data = np.full(24 * 10, np.nan, np.float32).tobytes()
        data = proto.SerializeToString()
        return Compressed(read_model(data, task=model.task, labels=model.labels))


@pytest.fixture
def with_bad_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    bad: Plugins[tuple[Pass, ...]] = Plugins(
        "modelyard.passes.of.this.test", {"raises": (Raises(),), "same": (Same(),), "poison": (Poison(),)}
    )
    monkeypatch.setattr(door, "PASSES", bad)


@pytest.mark.usefixtures("with_bad_passes")
def test_bad_passes_are_refusals_that_say_so(tiny: Case) -> None:
    before = tiny.model.onnx
    found = compress(
        tiny.model, ["raises", "same", "poison", "raises>same"], tiny.calibration, tiny.held,
        metric="accuracy", margin=0.05,
    )  # fmt: skip
    whys = {name: judgement.why for name, judgement in found.judgements}
    assert whys["raises"] == whys["raises>same"] == "the pass failed: RuntimeError: the tool broke"
    assert whys["same"] == "does not apply: it gives the same graph as the model given"
    assert "answers are not finite" in whys["poison"]
    assert (found.kept, found.model) == (FLOAT, tiny.model)
    assert tiny.model.onnx == before


def test_an_unknown_pass_is_named(tiny: Case) -> None:
    with pytest.raises(ModelyardError, match="did you mean 'int8-static'"):
        compress(tiny.model, ["int8static"], tiny.calibration, tiny.held, metric="accuracy", margin=0.1)


def test_no_pass_keeps_the_model(tiny: Case) -> None:
    found = compress(tiny.model, [], tiny.calibration, tiny.held, metric="accuracy", margin=0.1)
    assert (found.model, found.judgements, found.kept) == (tiny.model, (), FLOAT)


def test_passes_in_a_row_and_progress(pictures: Case) -> None:
    told: list[tuple[float, str]] = []
    found = compress(
        pictures.model, ["graph>int8-static"], pictures.calibration, pictures.held, metric="accuracy",
        margin=0.05, budget=0.2, progress=lambda fraction, text: told.append((fraction, text)),
    )  # fmt: skip
    assert [name for name, _ in found.judgements] == ["graph>int8-static", "graph>int8-static-u8"]
    assert found.notes["graph>int8-static"][0] == "graph: 8 nodes became 6"
    assert told == [(0.0, "graph>int8-static"), (0.5, "graph>int8-static-u8"), (1.0, "compressed")]


def test_nothing_is_said_and_nothing_is_left(
    pictures: Case, capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.chdir(tmp_path)
    root = logging.getLogger()
    before = (list(root.handlers), list(root.filters))
    for name in PASSES.names():
        for step in PASSES.get(name):
            with suppress(CompressError):
                step.apply(pictures.model, pictures.calibration)
    assert (list(root.handlers), list(root.filters)) == before
    assert capfd.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == []


def test_only_the_quantizer_is_silenced(caplog: pytest.LogCaptureFixture) -> None:
    with silence(), caplog.at_level(logging.WARNING):
        logging.getLogger().warning("ours")
    assert "ours" in caplog.text


def test_the_result_is_the_same_each_time(nets: Any) -> None:
    case = nets.cnn(4)
    for step in (GraphPass(), StaticInt8(), DynamicInt8()):
        assert (
            step.apply(case.model, case.calibration).model.digest
            == step.apply(case.model, case.calibration).model.digest
        )


def test_stale_shapes_do_not_stop_quantization(nets: Any) -> None:
    case = nets.mlp(24)
    proto = onnx.ModelProto.FromString(case.model.onnx)
    proto.graph.value_info.append(helper.make_tensor_value_info("r0", TensorProto.FLOAT, ["batch", 24]))
    stale = Model(proto.SerializeToString(), case.model.signature, case.model.task, case.model.labels)
    for step in (StaticInt8(), DynamicInt8()):
        assert step.apply(stale, case.calibration).notes
