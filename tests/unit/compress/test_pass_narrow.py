"""Fewer bits: ranges against onnxruntime's own, layers left in float, half floats and 4-bit weights."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from modelyard.compress import graph_file as gf
from modelyard.compress.passes.half import Half
from modelyard.compress.passes.int4_weights import Int4Weights
from modelyard.compress.passes.int8_ranges import BINS, entropy_threshold, percentile_range, ranges
from modelyard.compress.passes.int8_static import QUANTIZED, StaticInt8
from modelyard.core.errors import CompressError
from modelyard.model.model import Model
from modelyard.model.onnx_runtime import OnnxRuntime
from modelyard.model.predict import predict
from modelyard.model.reader import read_model

Case: TypeAlias = Any
Array: TypeAlias = np.ndarray[Any, Any]


def answers(model: Model, rows: Any) -> Array:
    return predict(OnnxRuntime().load(model), rows)


def test_extremes_are_onnxruntimes(pictures: Case, tmp_path: Any) -> None:
    from onnxruntime.quantization import CalibrationMethod
    from onnxruntime.quantization.calibrate import create_calibrator

    prepared = onnx.shape_inference.infer_shapes(gf.prepared(gf.parse(pictures.model)))
    ours = ranges(prepared, QUANTIZED, pictures.calibration, "minmax", 100.0)
    onnx.save(prepared, tmp_path / "m.onnx")
    calibrator = create_calibrator(
        tmp_path / "m.onnx", list(QUANTIZED), str(tmp_path / "a.onnx"), CalibrationMethod.MinMax
    )
    rows = iter([pictures.calibration])

    class Reader:
        def get_next(self) -> Any:
            return next(rows, None)

    with gf.silence():
        calibrator.collect_data(Reader())
        theirs = calibrator.compute_data()
    assert set(ours) == set(theirs.keys())
    for name, (low, high) in ours.items():
        np.testing.assert_allclose(
            (low, high), [float(np.ravel(x)[0]) for x in theirs[name].range_value], rtol=1e-6
        )


@given(st.integers(0, 99), st.floats(90, 100))
@settings(max_examples=40, deadline=None)
def test_a_percentile_holds_its_share(seed: int, percentile: float) -> None:
    values = np.random.default_rng(seed).normal(size=20_000)
    span = float(values.min()), float(values.max())
    low, high = percentile_range(np.histogram(values, bins=BINS, range=span)[0], span, percentile)
    inside = float(((values >= low) & (values <= high)).mean())
    assert percentile / 100 - 0.001 <= inside <= percentile / 100 + 0.01
    assert span[0] <= low <= 0 <= high <= span[1]


def test_entropy_cuts_long_tails_and_spares_even_ones() -> None:
    rng = np.random.default_rng(0)
    for values, least, most in (
        (rng.standard_t(3, size=50_000), 0.05, 0.6),
        (rng.uniform(-1, 1, size=50_000), 0.97, 1.0),
    ):
        reach = float(np.abs(values).max())
        counts = np.histogram(np.abs(values), bins=BINS, range=(0, reach))[0]
        assert least * reach <= entropy_threshold(counts, reach) <= most * reach
    assert entropy_threshold(np.zeros(BINS), 3.0) == 3.0


@pytest.mark.parametrize("calibration", ["minmax", "entropy", "percentile"])
@pytest.mark.parametrize("activations", ["s8", "u8"])
def test_each_calibration_keeps_the_answers(wide: Case, calibration: str, activations: str) -> None:
    found = StaticInt8(activations, calibration).apply(wide.model, wide.calibration)
    was, now = answers(wide.model, wide.held.tensors), answers(found.model, wide.held.tensors)
    assert (was.argmax(axis=1) == now.argmax(axis=1)).mean() > 0.97
    assert found.model.size < 0.3 * wide.model.size


def test_an_outlier_costs_the_extremes_more_than_a_percentile(wide: Case) -> None:
    rows = wide.calibration["x"].copy()
    rows[0] *= 300
    errors = []
    for calibration in ("minmax", "percentile"):
        found = StaticInt8(calibration=calibration, percentile=99).apply(wide.model, {"x": rows})
        errors.append(
            np.abs(answers(found.model, wide.held.tensors) - answers(wide.model, wide.held.tensors)).mean()
        )
    assert errors[1] < 0.5 * errors[0]


def fragile(nets: Any) -> tuple[Model, Any]:
    """Three layers, of which int8 ruins two: in the tensor between them large values hide what matters."""
    rng = np.random.default_rng(0)
    spread = np.ones((64, 64), np.float32) * 0
    np.fill_diagonal(spread, np.where(np.arange(64) < 32, 1.0, 1e-4))
    amplify = rng.normal(size=(64, 32)).astype(np.float32)
    amplify[:32] *= 1e-3
    amplify[32:] *= 1e4
    nodes = [
        helper.make_node("Gemm", ["x", "w0"], ["h0"]),
        helper.make_node("Gemm", ["h0", "w1"], ["h1"]),
        helper.make_node("Relu", ["h1"], ["r1"]),
        helper.make_node("Gemm", ["r1", "w2"], ["l"]),
        helper.make_node("Softmax", ["l"], ["probabilities"], axis=1),
    ]
    constants = {"w0": spread, "w1": amplify, "w2": rng.normal(size=(32, 10)).astype(np.float32) * 0.1}
    data = nets.graph_bytes(nodes, constants, [nets.tensor_input("x", [64])])
    model = read_model(data, task="classification", labels=nets.labels)
    return model, {"x": rng.normal(size=(200, 64)).astype(np.float32)}


def test_the_layers_that_int8_ruins_stay_float(nets: Any) -> None:
    model, rows = fragile(nets)
    errors = {}
    for floats in (0.0, 0.7):
        found = StaticInt8(floats=floats).apply(model, rows)
        errors[floats] = float(np.abs(answers(found.model, rows) - answers(model, rows)).mean())
    assert errors[0.7] < 0.25 * errors[0.0]
    said = next(note for note in found.notes if note.startswith("float by sensitivity"))
    assert "'h0'" in said and "'h1'" in said and said.count("alone") == 2
    assert any("with everything in int8" in note for note in found.notes)


def test_no_layer_is_left_in_float_without_need(wide: Case) -> None:
    found = StaticInt8(floats=0.5).apply(wide.model, wide.calibration)
    assert next(note for note in found.notes if "float by sensitivity" in note).count("alone") <= 1


def test_ragged_last_batches_and_missing_numbers(tiny: Case) -> None:
    rows = np.concatenate([tiny.calibration["x"][:70], np.full((3, 64), np.nan, np.float32)])
    found = StaticInt8(calibration="entropy").apply(tiny.model, {"x": rows})
    assert found.notes[0] == "calibrated on 70 rows, 3 with NaN or infinity left out"


@pytest.mark.parametrize("calibration", ["minmax", "entropy", "percentile"])
def test_constant_activations_do_not_trip_it(tiny: Case, calibration: str) -> None:
    rows = {"x": np.zeros((20, 64), np.float32)}
    assert np.isfinite(answers(StaticInt8(calibration=calibration).apply(tiny.model, rows).model, rows)).all()


def test_activations_that_overflow_are_told(nets: Any, tiny: Case) -> None:
    with pytest.raises(CompressError, match="activation is not finite"):
        StaticInt8().apply(tiny.model, {"x": np.full((20, 64), 3e38, np.float32)})


@pytest.mark.parametrize(("kind", "bound"), [("float16", 2.0**-11), ("bfloat16", 2.0**-8)])
def test_half_floats_round_and_nothing_else(wide: Case, kind: str, bound: float) -> None:
    found = Half(kind).apply(wide.model, wide.calibration)
    assert found.model.size < 0.52 * wide.model.size
    proto = onnx.ModelProto.FromString(found.model.onnx)
    assert gf.operators(proto)["Cast"] >= 3
    session = OnnxRuntime().load(found.model)
    was, now = answers(wide.model, wide.held.tensors), predict(session, wide.held.tensors)
    assert (was.argmax(axis=1) == now.argmax(axis=1)).mean() > 0.99
    before = {item.name: onnx.numpy_helper.to_array(item) for item in gf.parse(wide.model).graph.initializer}
    for item in proto.graph.initializer:
        stem = item.name.rsplit(f"_{kind}", 1)[0]
        narrow = np.asarray(onnx.numpy_helper.to_array(item)).astype(np.float32)
        np.testing.assert_allclose(narrow, before[stem], rtol=bound, atol=1e-7)


def test_float16_arithmetic_keeps_its_ends_float32(wide: Case) -> None:
    found = Half("float16", "all").apply(wide.model, wide.calibration)
    assert found.model.signature == wide.model.signature
    now = answers(found.model, wide.held.tensors)
    assert (answers(wide.model, wide.held.tensors).argmax(axis=1) == now.argmax(axis=1)).mean() > 0.99


def test_weights_beyond_float16_are_told(nets: Any, tiny: Case) -> None:
    case = nets.mlp(24)
    proto = gf.parse(case.model)
    values = np.array(onnx.numpy_helper.to_array(proto.graph.initializer[0]))
    values[0, 0] = 1e5
    proto.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(values, proto.graph.initializer[0].name))
    large = read_model(proto.SerializeToString(), task="classification", labels=case.model.labels)
    with pytest.raises(CompressError, match="does not fit float16"):
        Half().apply(large, case.calibration)
    assert Half("bfloat16").apply(large, case.calibration).notes


def test_bfloat16_arithmetic_says_that_there_is_none(tiny: Case) -> None:
    with pytest.raises(CompressError, match="bfloat16"):
        Half("bfloat16", "all").apply(tiny.model, tiny.calibration)


@pytest.mark.parametrize("block", ["16", "32", "128"])
@pytest.mark.parametrize("symmetric", [True, False])
def test_4_bit_weights_are_within_half_a_step(wide: Case, block: str, symmetric: bool) -> None:
    found = Int4Weights(block, symmetric).apply(wide.model, wide.calibration)
    kinds = gf.operators(gf.parse(found.model))
    assert kinds["MatMulNBits"] == (3 if block != "128" else 2)
    assert found.model.size < 0.25 * wide.model.size
    was, now = answers(wide.model, wide.held.tensors), answers(found.model, wide.held.tensors)
    assert (was.argmax(axis=1) == now.argmax(axis=1)).mean() > 0.9


def test_4_bit_products_keep_alpha_beta_and_transposition(nets: Any) -> None:
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("Gemm", ["x", "w", "b"], ["h"], transB=1, alpha=0.5, beta=2.0),
        helper.make_node("Softmax", ["h"], ["probabilities"], axis=1),
    ]
    # Few values a block that 4 bits hold exactly: the answers must be the same.
    weight = rng.integers(-7, 8, size=(10, 64)).astype(np.float32)
    weight[:, ::16] = -8.0
    constants = {"w": weight, "b": rng.normal(size=10).astype(np.float32)}
    data = nets.graph_bytes(nodes, constants, [nets.tensor_input("x", [64])])
    model = read_model(data, task="classification", labels=nets.labels)
    rows = {"x": (rng.normal(size=(30, 64)) * 0.1).astype(np.float32)}
    found = Int4Weights("16").apply(model, rows)
    np.testing.assert_allclose(answers(found.model, rows), answers(model, rows), atol=1e-4)


def test_rows_do_not_disturb_each_other_in_int8_arithmetic(wide: Case) -> None:
    model = Int4Weights(arithmetic="int8").apply(wide.model, wide.calibration).model
    rows = wide.held.tensors["x"][:8]
    alone = np.concatenate([answers(model, {"x": rows[place : place + 1]}) for place in range(8)])
    beside = answers(model, {"x": np.concatenate([rows, 1e4 * np.ones((4, 64), np.float32)])})[:8]
    np.testing.assert_allclose(alone, beside, atol=1e-4)


def test_narrow_products_are_left(nets: Any, pictures: Case) -> None:
    with pytest.raises(CompressError, match="no MatMul or Gemm has 256 inputs"):
        Int4Weights("256").apply(nets.mlp(24).model, pictures.calibration)
