"""Passes that learn: losses against plain formulas, the graph in torch, and what training must not undo."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modelyard.compress import graph_file as gf
from modelyard.compress.distil_loss import cosine, hinton, mean_teacher, soft_loss, softened
from modelyard.compress.passes.distil import Distil
from modelyard.compress.passes.fine_tune import FineTune
from modelyard.compress.passes.layers import array_of, editable, some_layers
from modelyard.compress.passes.prune import MagnitudePrune
from modelyard.compress.passes.prune_gradual import GradualPrune
from modelyard.compress.passes.prune_structured import StructuredPrune
from modelyard.compress.passes.qat import QuantizationAware
from modelyard.compress.passes.separable import Separable
from modelyard.compress.passes.torch_graph import GraphModule
from modelyard.compress.passes.torch_tuning import columns
from modelyard.compress.passes.weight_sharing import WeightSharing
from modelyard.compress.plan import parse, run_plan
from modelyard.compress.plan_trainable import Bound, Trainable
from modelyard.compress.qat_fake import Observers, fake_activation, fake_weight
from modelyard.core.errors import CompressError
from modelyard.model.model import Model
from modelyard.model.onnx_runtime import OnnxRuntime
from modelyard.model.predict import predict
from modelyard.model.reader import read_model
from modelyard.train.dataset import Dataset
from modelyard.train.recipe import Recipe

Case: TypeAlias = Any
Array: TypeAlias = np.ndarray[Any, Any]


def answers(model: Model, rows: Any) -> Array:
    return predict(OnnxRuntime().load(model), rows)


def accuracy(model: Model, case: Case) -> float:
    return float((answers(model, case.held.tensors).argmax(axis=1) == case.held.targets).mean())


def trainable(nets: Any, shape: tuple[int, ...] = (64,), **more: Any) -> Trainable:
    images, labels = nets.digits()
    images = images.reshape(-1, *shape)
    data = Dataset(
        "classification",
        nets.labels,
        {"x": images[:700]},
        labels[:700],
        {"x": images[700:900]},
        labels[700:900],
    )
    return Trainable(more.pop("recipe", None), more.pop("params", {}), data, **more)


# Losses


def softmax(z: Array) -> Array:
    raised = np.exp(z - z.max(axis=1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=1, keepdims=True))


@given(st.integers(0, 99), st.floats(1, 20), st.floats(0, 1))
@settings(max_examples=40, deadline=None)
def test_hintons_loss_and_its_gradient_are_the_plain_formulas(seed: int, t: float, a: float) -> None:
    rng = np.random.default_rng(seed)
    student, teacher, targets = (
        rng.normal(size=(6, 4)) * 3,
        rng.normal(size=(6, 4)) * 2,
        rng.integers(0, 4, 6),
    )
    logits = torch.tensor(student, requires_grad=True)
    soft = mean_teacher([torch.tensor(softmax(teacher))], t)
    loss = hinton(logits, torch.tensor(targets), soft, a, t)
    loss.backward()
    p, q, hard = softmax(teacher / t), softmax(student / t), softmax(student)
    kl = (p * (np.log(p) - np.log(q))).sum(axis=1).mean()
    entropy = -np.log(hard[np.arange(6), targets]).mean()
    assert loss.item() == pytest.approx((1 - a) * entropy + a * t * t * kl, rel=1e-6, abs=1e-9)
    gradient = ((1 - a) * (hard - np.eye(4)[targets]) + a * t * (q - p)) / 6
    np.testing.assert_allclose(logits.grad, gradient, atol=1e-9)


def test_softening_needs_only_probabilities() -> None:
    z = torch.tensor(np.random.default_rng(0).normal(size=(5, 7)) * 4)
    torch.testing.assert_close(softened(torch.softmax(z, 1), 3.0), torch.softmax(z / 3.0, 1))
    assert float(soft_loss(z, torch.softmax(z / 3.0, 1), 3.0)) == pytest.approx(0, abs=1e-9)


def test_rows_without_a_label_count_in_the_soft_term_only() -> None:
    logits, soft = torch.randn(4, 3), torch.softmax(torch.randn(4, 3), 1)
    some = torch.tensor([1, -1, 2, -1])
    want = 0.4 * torch.nn.functional.cross_entropy(logits[[0, 2]], some[[0, 2]]) + 0.6 * soft_loss(
        logits, soft, 2.0
    )
    torch.testing.assert_close(hinton(logits, some, soft, 0.6, 2.0), want)
    torch.testing.assert_close(
        hinton(logits, -torch.ones(4).long(), soft, 0.6, 2.0), 0.6 * soft_loss(logits, soft, 2.0)
    )


def test_the_cosine_term_sees_directions_only() -> None:
    x = torch.randn(5, 8)
    assert float(cosine(x, 7 * x)) == pytest.approx(0, abs=1e-6)
    assert float(cosine(x, -x)) == pytest.approx(2, abs=1e-6)


# Fake quantisation


@given(st.integers(0, 99), st.booleans())
@settings(max_examples=30, deadline=None)
def test_fake_quantisation_is_what_onnx_computes(seed: int, signed: bool) -> None:
    rng = np.random.default_rng(seed)
    x = torch.tensor(rng.normal(size=200).astype(np.float32) * 2)
    low, high = -float(rng.uniform(0, 3)), float(rng.uniform(0.1, 3))
    found = fake_activation(x, low, high, signed=signed)
    scale = (high - low) / 255
    assert float((found - x.clamp(low, high)).abs().max()) <= scale * 0.5 + scale * 0.51
    assert float(fake_activation(torch.zeros(1), low, high, signed=signed)) == 0
    assert len(found.unique()) <= 256


def test_gradients_go_straight_through_within_the_range() -> None:
    x = torch.tensor([-5.0, -0.5, 0.2, 0.9, 5.0], requires_grad=True)
    fake_activation(x, -1.0, 1.0, signed=True).sum().backward()
    assert x.grad is not None and x.grad.tolist() == [0, 1, 1, 1, 0]
    weight = torch.randn(3, 4, requires_grad=True)
    fake_weight(weight, 0).sum().backward()
    assert weight.grad is not None and bool((weight.grad == 1).all())


def test_the_quantized_graph_answers_as_the_fake_one(nets: Any, pictures: Case) -> None:
    step, how = QuantizationAware(epochs=1, rate=1e-4), trainable(nets, (1, 8, 8))
    found = Bound(step, how).apply(pictures.model, pictures.calibration)
    tuned = Bound(FineTune(epochs=1, rate=1e-7), how).apply(pictures.model, pictures.calibration).model
    proto = editable(tuned)
    module = GraphModule(proto)
    module.eval()
    axes = {item.name: 0 if item.kind == "Conv" or item.transposed else 1 for item in some_layers(proto)[0]}
    module.hook = Observers(axes, True, module)
    with torch.no_grad():
        module(columns(pictures.calibration))
        fake = module(columns(pictures.held.tensors)).argmax(dim=1).numpy()
    assert (answers(found.model, pictures.held.tensors).argmax(axis=1) == fake).mean() > 0.97
    assert gf.operators(gf.parse(found.model))["QuantizeLinear"] >= 2
    assert "int8: Conv 1" in found.notes[2]
    assert accuracy(found.model, pictures) > 0.95


# The graph in torch


def test_the_module_answers_as_onnxruntime_and_writes_the_same_graph(wide: Case, pictures: Case) -> None:
    for case in (wide, pictures):
        module = GraphModule(gf.parse(case.model))
        with torch.no_grad():
            found = torch.softmax(module(columns(case.held.tensors)), 1).numpy()
        np.testing.assert_allclose(found, answers(case.model, case.held.tensors), atol=1e-5)
        assert module.written() == gf.parse(case.model)


def test_a_pruned_graph_gets_its_quality_back_and_keeps_its_zeros(nets: Any, pictures: Case) -> None:
    model = MagnitudePrune(0.8).apply(pictures.model, pictures.calibration).model
    tuned = Bound(FineTune(epochs=4, rate=1e-2), trainable(nets, (1, 8, 8))).apply(
        model, pictures.calibration
    )
    assert accuracy(tuned.model, pictures) > accuracy(model, pictures) + 0.1
    for before, after in zip(
        *(gf.parse(item).graph.initializer for item in (model, tuned.model)), strict=True
    ):
        zero = array_of(before) == 0
        if zero.ndim > 1:
            assert (array_of(after)[zero] == 0).all()
    free = Bound(FineTune(epochs=1, zeros=False), trainable(nets, (1, 8, 8))).apply(
        model, pictures.calibration
    )
    assert not any("keep their zeros" in note for note in free.notes)


def test_a_codebook_of_a_pruned_graph_keeps_its_zero(nets: Any, pictures: Case) -> None:
    pruned = MagnitudePrune(0.6).apply(pictures.model, pictures.calibration).model
    shared = WeightSharing(bits=4, conv_bits=4).apply(pruned, pictures.calibration).model
    tuned = Bound(FineTune(epochs=1, rate=1e-2), trainable(nets, (1, 8, 8))).apply(
        shared, pictures.calibration
    )
    constants = gf.parse(tuned.model).graph.initializer
    books = [array_of(item) for item in constants if "_values_" in item.name]
    assert books and all(book[0] == 0 for book in books)


def test_a_codebook_learns_and_stays_a_codebook(nets: Any, pictures: Case) -> None:
    shared = WeightSharing(bits=2, conv_bits=2).apply(pictures.model, pictures.calibration).model
    tuned = Bound(FineTune(epochs=2, rate=1e-2), trainable(nets, (1, 8, 8))).apply(
        shared, pictures.calibration
    )
    assert tuned.model.size == shared.size
    assert accuracy(tuned.model, pictures) > accuracy(shared, pictures)


def test_gradual_pruning_reaches_its_goal_and_loses_less(nets: Any, pictures: Case) -> None:
    step = GradualPrune(0.8, rounds=3, epochs=2, rate=1e-2)
    found = Bound(step, trainable(nets, (1, 8, 8))).apply(pictures.model, pictures.calibration)
    arrays = [array_of(item) for item in gf.parse(found.model).graph.initializer if len(item.dims) > 1]
    every = np.concatenate([array.ravel() for array in arrays])
    assert (every == 0).mean() == pytest.approx(0.8, abs=0.02)
    once = MagnitudePrune(0.8).apply(pictures.model, pictures.calibration).model
    assert accuracy(found.model, pictures) > accuracy(once, pictures) + 0.1
    assert len(found.notes) == 4


def test_distillation_teaches_from_answers_alone(nets: Any, pictures: Case) -> None:
    """A student whose rows are all unlabelled but a few learns more than from the few."""
    small = StructuredPrune(0.5).apply(pictures.model, pictures.calibration).model
    images, labels = nets.digits()
    images = images.reshape(-1, 1, 8, 8)
    few = Dataset(
        "classification",
        nets.labels,
        {"x": images[:40]},
        labels[:40],
        {"x": images[700:900]},
        labels[700:900],
    )
    plain = Trainable(None, {}, few)
    taught = Trainable(
        None, {}, few, teachers=(pictures.model, pictures.model), unlabelled={"x": images[40:700]}
    )
    alone = Bound(FineTune(epochs=5, rate=3e-3), plain).apply(small, pictures.calibration)
    found = Bound(Distil(a=0.9, epochs=5, rate=3e-3), taught).apply(small, pictures.calibration)
    assert found.notes[0] == "taught by 2 teachers on 40 labelled and 660 unlabelled rows"
    assert accuracy(found.model, pictures) > accuracy(alone.model, pictures)


def test_a_plan_teaches_with_the_model_it_started_from(nets: Any, pictures: Case) -> None:
    plan = parse("prune-units(0.5) > distil(T=2, epochs=3, rate=0.003) > int8-static")
    found = run_plan(plan, pictures.model, pictures.calibration, trainable=trainable(nets, (1, 8, 8)))
    cut = run_plan(parse("prune-units(0.5) > int8-static"), pictures.model, pictures.calibration)
    assert accuracy(found.model, pictures) > accuracy(cut.model, pictures)
    assert found.model.size < 0.5 * pictures.model.size


def test_features_that_do_not_match_are_told(nets: Any, wide: Case, tiny: Case) -> None:
    how = trainable(nets, teachers=(wide.model,))
    with pytest.raises(CompressError, match="features of student and teacher"):
        Bound(Distil(epochs=1, cosine=1.0), how).apply(tiny.model, tiny.calibration)


def test_a_wide_convolution_becomes_separable(nets: Any) -> None:
    rng = np.random.default_rng(0)
    nodes = [
        onnx.helper.make_node("Conv", ["x", "w0"], ["c0"], pads=[1, 1, 1, 1]),
        onnx.helper.make_node("Relu", ["c0"], ["r0"]),
        onnx.helper.make_node("Conv", ["r0", "w1", "b1"], ["c1"], pads=[1, 1, 1, 1], strides=[2, 2]),
        onnx.helper.make_node("Relu", ["c1"], ["r1"]),
        onnx.helper.make_node("Flatten", ["r1"], ["f"], axis=1),
        onnx.helper.make_node("Gemm", ["f", "w2"], ["l"]),
        onnx.helper.make_node("Softmax", ["l"], ["probabilities"], axis=1),
    ]
    shapes = {"w0": (16, 1, 3, 3), "w1": (16, 16, 3, 3), "b1": (16,), "w2": (256, 10)}
    constants = {name: (rng.normal(size=shape) * 0.2).astype(np.float32) for name, shape in shapes.items()}
    data = nets.graph_bytes(nodes, constants, [nets.tensor_input("x", [1, 8, 8])])
    model = read_model(data, task="classification", labels=nets.labels)
    how = trainable(nets, (1, 8, 8))
    found = Bound(Separable(epochs=1), how).apply(model, {"x": how.dataset.train["x"][:50]})
    assert "separable, 17.4 % left" in found.notes[0]
    groups = [
        onnx.helper.get_attribute_value(item)
        for node in gf.parse(found.model).graph.node
        for item in node.attribute
        if item.name == "group"
    ]
    assert groups.count(16) == 1


def test_regression_trains_on_its_own_scale(nets: Any) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 8)).astype(np.float32)
    y = 1000 + 200 * np.tanh(x[:, 0]) + 50 * x[:, 1]
    nodes = [
        onnx.helper.make_node("Gemm", ["x", "w", "b"], ["h"]),
        onnx.helper.make_node("Relu", ["h"], ["r"]),
        onnx.helper.make_node("Gemm", ["r", "v"], ["g"]),
        onnx.helper.make_node("Mul", ["g", "scale"], ["m"]),
        onnx.helper.make_node("Add", ["m", "mean"], ["prediction"]),
    ]
    constants = {
        "w": rng.normal(size=(8, 16)).astype(np.float32), "b": np.zeros(16, np.float32),
        "v": (rng.normal(size=(16, 1)) * 0.1).astype(np.float32),
        "scale": np.float32(y.std()), "mean": np.float32(y.mean()),
    }  # fmt: skip
    model = read_model(
        nets.graph_bytes(nodes, constants, [nets.tensor_input("x", [8])], "prediction", 1), task="regression"
    )
    data = Dataset("regression", (), {"x": x[:200]}, y[:200], {"x": x[200:]}, y[200:])
    how = Trainable(None, {}, data)
    for step in (
        FineTune(epochs=40, rate=2e-2),
        Distil(a=0.0, epochs=40, rate=2e-2),
        QuantizationAware(epochs=40, rate=2e-2),
    ):
        found = Bound(step, how).apply(model, {"x": x[:200]})
        before, after = (
            np.square(answers(item, {"x": x[200:]})[:, 0] - y[200:]).mean() for item in (model, found.model)
        )
        assert after < 0.5 * before


# With a recipe

RECIPE = """
import torch
from modelyard import Training

def build(trial):
    width = trial.suggest_int("width", 4, 64)
    network = torch.nn.Sequential(torch.nn.Linear(64, width), torch.nn.ReLU(), torch.nn.Linear(width, 10))
    return Training(network, epochs=3, learning_rate=1e-2)
"""


def test_a_recipe_gives_the_student_and_the_first_weights(nets: Any, wide: Case, tmp_path: Path) -> None:
    (tmp_path / "recipe.py").write_text(RECIPE)
    recipe = Recipe(tmp_path / "recipe.py")
    how = trainable(
        nets, recipe=recipe, params={"width": 24}, student=(recipe, {"width": 24}), teachers=(wide.model,)
    )
    teach = Distil(student="recipe", epochs=15, rate=1e-2)
    student = Bound(teach, how).apply(wide.model, wide.calibration)
    assert student.model.size < wide.model.size / 50
    assert accuracy(student.model, wide) > 0.85
    ticket = Bound(GradualPrune(0.5, rounds=2, epochs=6, rate=1e-2, rewind=True), how)
    found = ticket.apply(student.model, wide.calibration)
    assert "each round began from the recipe's first weights" in found.notes
    assert accuracy(found.model, wide) > 0.75
    with pytest.raises(CompressError, match="first graph is not this model's"):
        ticket.apply(wide.model, wide.calibration)


# Bad input


def test_what_does_not_fit_is_told(nets: Any, tiny: Case, pictures: Case, trees: Case) -> None:
    how = trainable(nets)
    with pytest.raises(CompressError, match="needs the recipe"):
        Bound(GradualPrune(rewind=True), how).apply(tiny.model, tiny.calibration)
    with pytest.raises(CompressError, match="no student is given"):
        Bound(Distil(student="recipe"), how).apply(tiny.model, tiny.calibration)
    with pytest.raises(CompressError, match="targets do not fit"):
        Bound(FineTune(), how).apply(trees.model, trees.calibration)
    other = Dataset("classification", nets.labels, *(
        part for source in (slice(0, 50), slice(50, 90))
        for part in ({"y": tiny.held.tensors["x"][source]}, tiny.held.targets[source])
    ))  # fmt: skip
    with pytest.raises(CompressError, match="rows do not fit"):
        Bound(FineTune(), Trainable(None, {}, other)).apply(tiny.model, tiny.calibration)
    with pytest.raises(CompressError, match="another question"):
        Bound(Distil(), trainable(nets, teachers=(pictures.model,))).apply(tiny.model, tiny.calibration)
    before = tiny.model.onnx
    with pytest.raises(CompressError, match="diverged"):
        broken = trainable(nets)
        broken.dataset.train["x"][5, 5] = np.nan
        Bound(FineTune(), broken).apply(tiny.model, tiny.calibration)
    assert tiny.model.onnx == before
