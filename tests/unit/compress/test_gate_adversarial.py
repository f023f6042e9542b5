"""Networks that eight bits really harm, by the real passes: slower, ruined on a slice, NaN at the edge."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import helper

from modelyard.compress.compress import compress, compress_as
from modelyard.compress.gate import Held
from modelyard.core.errors import MissingExtra, ModelyardError
from modelyard.model.chosen_runtime import DEFAULT_RUNTIME, ChosenRuntime
from modelyard.model.model import Model
from modelyard.model.reader import read_model

INT8 = ("int8-static", "int8-static:percentile", "int8-dynamic")


@pytest.mark.serial
def test_a_chain_of_small_products_that_int8_only_slows_down(nets: Any) -> None:
    """Eight layers of 12: each product is nothing beside the rounding before and after it."""
    case = nets.mlp(*[12] * 8)
    found = compress(case.model, INT8, case.calibration, case.held, metric="accuracy", margin=0.5)
    assert found.kept == "float" and found.model is case.model
    timed = [item for _, item in found.judgements if not np.isnan(item.speedup.value)]
    assert timed, [item.why for _, item in found.judgements]
    for item in timed:
        assert not item.accepted
        assert "not surely faster" in item.why
        assert "time was lost in" in item.why and "QuantizeLinear" in item.why, item.why


def two_ranges(nets: Any, rows: int = 3000) -> tuple[Model, Any, Held, Any]:
    """Common rows speak in thousands, rare ones (a twentieth) in ones: one scale cannot tell both."""
    rng = np.random.default_rng(4)
    rare = rng.random(rows) < 0.05
    x = np.zeros((rows, 8), np.float32)
    x[:, :4] = rng.uniform(-1000, 1000, (rows, 4)) * ~rare[:, None]
    x[:, 4:] = rng.uniform(-1, 1, (rows, 4)) * rare[:, None]
    weight = np.zeros((8, 2), np.float32)
    weight[:, 1] = 1.0
    truth = (x @ weight)[:, 1] > 0
    nodes = [
        helper.make_node("Gemm", ["x", "w"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    data = nets.graph_bytes(nodes, {"w": weight}, [nets.tensor_input("x", [8])], columns=2)
    model = read_model(data, task="classification", labels=("no", "yes"))
    return model, {"x": x[:300]}, Held({"x": x[300:]}, truth[300:].astype(np.int64)), rare[300:]


def test_a_slice_that_one_scale_rounds_away_is_refused_by_name(nets: Any) -> None:
    model, calibration, held, rare = two_ranges(nets)
    slices = {"rare": rare, "common": ~rare}
    found = compress(
        model, ("int8-static",), calibration, held, metric="accuracy", margin=0.06, slices=slices, goal="size"
    )
    assert found.kept == "float" and found.model is model
    for _, item in found.judgements:
        assert item.why.startswith("slice rare:"), item.why
        assert "common" not in item.why
        claims = {verdict.claim: verdict.passed for verdict in item.verdicts}
        assert claims["non_inferior.accuracy"], "over all rows the loss drowns: only the slice tells"


def divided(nets: Any) -> tuple[Model, Any, Held]:
    """Shares of what is above zero: eight bits round away the little that guards a division by zero."""
    images, labels = nets.digits()
    target = np.eye(10)[labels[:900]] - 0.05
    gram = images[:900].T @ images[:900] + 9 * np.eye(64)
    weight = np.linalg.solve(gram, images[:900].T @ target).astype(np.float32)
    nodes = [
        helper.make_node("Gemm", ["x", "w", "b"], ["logits"]),
        helper.make_node("Relu", ["logits"], ["r"]),
        helper.make_node("ReduceSum", ["r", "axes"], ["sum"], keepdims=1),
        helper.make_node("Add", ["sum", "little"], ["over"]),
        helper.make_node("Mul", ["r", "sharp"], ["sharp_r"]),
        helper.make_node("Div", ["sharp_r", "over"], ["sharper"]),
        helper.make_node("Softmax", ["sharper"], ["probabilities"], axis=1),
    ]
    constants = {
        "w": weight, "b": np.full(10, -0.01, np.float32), "axes": np.array([1], np.int64),
        "little": np.array([1e-6], np.float32), "sharp": np.array([12.0], np.float32),
    }  # fmt: skip
    data = nets.graph_bytes(nodes, constants, [nets.tensor_input("x", [64])])
    model = read_model(data, task="classification", labels=nets.labels)
    return model, {"x": images[:300]}, Held({"x": images[900:]}, labels[900:])


def test_int8_that_divides_by_zero_on_an_empty_row_is_refused(nets: Any) -> None:
    model, calibration, held = divided(nets)
    found = compress(model, ("int8-static",), calibration, held, metric="accuracy", margin=0.3, goal="size")
    assert found.kept == "float"
    assert found.judgements
    for _, item in found.judgements:
        assert "on extreme rows" in item.why and "not finite where the original's are" in item.why, item.why


def test_a_plan_that_was_chosen_before_is_judged_like_any_other(nets: Any) -> None:
    model, calibration, held, rare = two_ranges(nets)
    found = compress_as(
        model, "int8-static", DEFAULT_RUNTIME, calibration, held, metric="accuracy", margin=0.06,
        slices={"rare": rare}, goal="size",
    )  # fmt: skip
    assert (found.kept, found.runtime) == ("float", "onnxruntime")
    assert found.model is model
    [(name, judged)] = found.judgements
    assert name == "int8-static"
    assert judged.why.startswith("slice rare:")


@pytest.mark.parametrize(
    ("plan", "match"),
    [
        ("int8-statik", "did you mean 'int8-static'"),
        ("tune(epochs=1)", "rows with targets to train on"),
        ("low-rank(energy=7)", "energy"),
    ],
)
def test_a_plan_that_cannot_be_applied_any_more_keeps_the_original(tiny: Any, plan: str, match: str) -> None:
    found = compress_as(
        tiny.model, plan, DEFAULT_RUNTIME, tiny.calibration, tiny.held, metric="accuracy", margin=0.02
    )
    assert found.model is tiny.model
    [(_, judged)] = found.judgements
    assert match in judged.why


def test_the_model_as_trained_on_another_runtime_is_a_plan_too(tiny: Any) -> None:
    pytest.importorskip("openvino")
    chosen = ChosenRuntime("openvino")
    found = compress_as(
        tiny.model, "float", chosen, tiny.calibration, tiny.held, metric="accuracy", margin=0.02, budget=0.3
    )
    [(name, judged)] = found.judgements
    assert name == "float@openvino"
    assert found.model is tiny.model
    assert found.runtime == ("openvino" if judged.accepted else "onnxruntime")


def test_a_runtime_that_is_not_there_is_an_error_not_a_refusal(
    tiny: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A refusal would be remembered; installing what is missing must be enough to go on."""
    from modelyard.model import openvino_runtime

    def missing() -> Any:
        raise MissingExtra("openvino", "openvino")

    monkeypatch.setattr(openvino_runtime, "_core", missing)
    with pytest.raises(MissingExtra, match=r"modelyard\[openvino\]"):
        compress_as(
            tiny.model, "float", ChosenRuntime("openvino"), tiny.calibration, tiny.held, metric="accuracy",
            margin=0.02,
        )  # fmt: skip
    with pytest.raises(ModelyardError, match="did you mean"):
        compress_as(
            tiny.model, "float", ChosenRuntime("openvina"), tiny.calibration, tiny.held, metric="accuracy",
            margin=0.02,
        )  # fmt: skip
