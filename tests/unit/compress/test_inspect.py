"""What is told of a model: counts that can be checked by hand, memory, fusion, a page that is safe."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from modelyard.compress.inspect import roofline
from modelyard.compress.inspect.facts import graph_facts, one_row
from modelyard.compress.inspect.foreign import read_any
from modelyard.compress.inspect.inspection import inspect_model
from modelyard.compress.inspect.layout import layered
from modelyard.compress.inspect.liveness import liveness
from modelyard.compress.inspect.macs import macs
from modelyard.compress.inspect.page import page
from modelyard.compress.inspect.roofline import Roof, roof
from modelyard.compress.machine import this_machine
from modelyard.compress.passes.int8_static import StaticInt8
from modelyard.core.errors import ModelError
from modelyard.model.reader import read_model

Case: TypeAlias = Any
"""A model with rows, from conftest.py."""

ROOF = Roof(this_machine(), 1e10, 1e11, 4e11)


@pytest.mark.parametrize(
    ("kind", "shapes", "attributes", "count"),
    [
        ("Conv", {"a": (1, 3, 8, 8), "b": (4, 3, 3, 3), "y": (1, 4, 6, 6)}, {}, 4 * 36 * 27),
        ("Conv", {"a": (1, 8, 8, 8), "b": (8, 1, 3, 3), "y": (1, 8, 6, 6)}, {"group": 8}, 8 * 36 * 9),
        ("ConvTranspose", {"a": (1, 2, 4, 4), "b": (2, 3, 2, 2), "y": (1, 3, 8, 8)}, {}, 32 * 12),
        ("Gemm", {"a": (5, 7), "b": (7, 3), "y": (5, 3)}, {}, 105),
        ("Gemm", {"a": (7, 5), "b": (7, 3), "y": (5, 3)}, {"transA": 1}, 105),
        ("MatMul", {"a": (2, 5, 7), "b": (2, 7, 3), "y": (2, 5, 3)}, {}, 210),
        ("MatMulInteger", {"a": (5, 7), "b": (7, 3), "y": (5, 3)}, {}, 105),
        ("Einsum", {"a": (5, 7), "b": (7, 3), "y": (5, 3)}, {"equation": "ij,jk->ik"}, 105),
        ("Relu", {"a": (5, 7), "y": (5, 7)}, {}, 0),
        ("Gemm", {"a": None, "b": (7, 3), "y": (5, 3)}, {}, 0),
    ],
)
def test_multiplications_are_counted(
    kind: str, shapes: dict[str, Any], attributes: dict[str, Any], count: int
) -> None:
    node = helper.make_node(kind, [name for name in shapes if name != "y"], ["y"], **attributes)
    assert macs(node, shapes) == count


def test_a_lstm_counts_its_steps() -> None:
    node = helper.make_node("LSTM", ["x", "w", "r"], ["y"], hidden_size=8)
    shapes = {"x": (5, 2, 3), "w": (1, 32, 3), "r": (1, 32, 8), "y": (5, 1, 2, 8)}
    assert macs(node, shapes) == 5 * 2 * 32 * (3 + 8)


def test_facts_of_a_network(pictures: Case) -> None:
    facts = graph_facts(pictures.model)
    assert facts.macs == 16 * 64 * 9 + 256 * 10
    assert facts.parameters == 4 * (16 * 9 + 4 * 16 + 2560 + 10)
    assert facts.operators["Conv"] == 1
    assert facts.bytes == pictures.model.size
    assert facts.tensors["c"].shape == (1, 16, 8, 8)
    assert facts.notes == ()


def test_memory_is_the_peak_of_what_is_alive_together(nets: Any) -> None:
    # x [1,4] -> a [1,8] -> b [1,2]; x is read again at the end, so it lives throughout.
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"]),
        helper.make_node("Relu", ["a"], ["r"]),
        helper.make_node("MatMul", ["r", "v"], ["b"]),
        helper.make_node("Concat", ["b", "x"], ["c"], axis=1),
        helper.make_node("MatMul", ["c", "u"], ["prediction"]),
    ]
    constants = {name: np.ones(shape, np.float32) for name, shape in
                 {"w": (4, 8), "v": (8, 2), "u": (6, 1)}.items()}  # fmt: skip
    data = nets.graph_bytes(nodes, constants, [nets.tensor_input("x", [4])], "prediction", 1)
    found = liveness(graph_facts(read_model(data, task="regression")))
    assert found.alive == tuple(4 * count for count in (4 + 8, 4 + 8 + 8, 4 + 8 + 2, 4 + 2 + 6, 6 + 1))
    assert (found.peak, found.node) == (80, 1)


def test_views_need_no_memory_of_their_own(nets: Any) -> None:
    nodes = [
        helper.make_node("Flatten", ["x"], ["f"], axis=1),
        helper.make_node("MatMul", ["f", "w"], ["prediction"]),
    ]
    data = nets.graph_bytes(
        nodes, {"w": np.ones((4, 1), np.float32)}, [nets.tensor_input("x", [2, 2])], "prediction", 1
    )
    assert liveness(graph_facts(read_model(data, task="regression"))).peak == 16 + 4


def test_int8_activations_take_a_quarter(pictures: Case) -> None:
    quantized = StaticInt8("u8").apply(pictures.model, pictures.calibration).model
    assert liveness(graph_facts(quantized)).peak < liveness(graph_facts(pictures.model)).peak / 3


def test_fusion_and_time_by_operator(pictures: Case) -> None:
    found = inspect_model(pictures.model, roof=ROOF, repeats=5)
    names = {node.name: found.times[node.index] for node in found.facts.nodes}
    assert names["Conv c"].into == "Relu r" and names["BatchNormalization n"].into == "Relu r"
    assert names["Relu r"].operator == "Conv" and names["Relu r"].seconds > 0
    assert names["Relu r"].bound in ("memory", "arithmetic")
    assert names["Relu r"].reached > 0
    assert names["Relu r"].intensity > 1
    assert found.seconds == pytest.approx(sum(seconds for _, _, seconds, _ in found.by_operator()))
    quantized = StaticInt8("u8").apply(pictures.model, pictures.calibration).model
    seen = inspect_model(quantized, repeats=3)
    assert seen.not_int8 == ()
    assert {name for name, _, _, int8 in seen.by_operator() if int8} == {"QLinearConv", "QGemm"}
    assert json.loads(json.dumps(seen.to_json()))["nodes"]


def test_dynamic_shapes_are_assumed_and_said(nets: Any) -> None:
    nodes = [
        helper.make_node("ReduceSum", ["x", "axes"], ["s"], keepdims=0),
        helper.make_node("Unsqueeze", ["s", "one"], ["prediction"]),
    ]
    constants = {"axes": np.array([1], np.int64), "one": np.array([1], np.int64)}
    data = nets.graph_bytes(nodes, constants, [], "prediction", 1)
    proto = onnx.ModelProto.FromString(data)
    proto.graph.input.append(helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", "length"]))
    model = read_model(proto.SerializeToString(), task="regression")
    found = inspect_model(model, repeats=1)
    assert any("unknown dimensions are taken as 1" in note for note in found.notes)
    rows, _ = one_row(model, {"x": 9})
    assert rows["x"].shape == (1, 9)


def test_a_row_that_the_graph_cannot_take_is_said(nets: Any) -> None:
    nodes = [
        helper.make_node("Reshape", ["x", "shape"], ["h"]),
        helper.make_node("MatMul", ["h", "w"], ["prediction"]),
    ]
    constants = {"shape": np.array([-1, 4], np.int64), "w": np.ones((4, 1), np.float32)}
    data = nets.graph_bytes(nodes, constants, [], "prediction", 1)
    proto = onnx.ModelProto.FromString(data)
    proto.graph.input.append(helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", "length"]))
    found = inspect_model(read_model(proto.SerializeToString(), task="regression"), repeats=1)
    assert any("could not be run on the row" in note for note in found.notes)
    assert any(note.startswith("not timed") for note in found.notes)


def test_any_onnx_file_can_be_looked_into(nets: Any) -> None:
    node = helper.make_node("MatMul", ["in", "w"], ["logits"])
    graph = helper.make_graph(
        [node], "g", [helper.make_tensor_value_info("in", TensorProto.FLOAT, [2, 3])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [2, 5])],
        [numpy_helper.from_array(np.ones((3, 5), np.float32), "w")],
    )  # fmt: skip
    data = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    model, notes = read_any(data.SerializeToString())
    assert "not as the loop serves it" in notes[0]
    assert inspect_model(model, repeats=1).facts.macs == 30
    with pytest.raises(ModelError):
        read_any(b"no model at all")
    with pytest.raises(ModelError):
        read_any(b"")


def test_the_page_is_whole_and_escaped(nets: Any) -> None:
    evil = '</title><script>alert("x")</script>'
    nodes = [helper.make_node("MatMul", ["x", "w"], ["prediction"], name=evil)]
    data = nets.graph_bytes(
        nodes, {"w": np.ones((4, 1), np.float32)}, [nets.tensor_input("x", [4])], "prediction", 1
    )
    found = inspect_model(read_model(data, task="regression"), repeats=1)
    text = page(found, "a & b <c>")
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    assert "a &amp; b &lt;c&gt;" in text
    assert not re.search(r"(src|href)\s*=", text)
    assert "http" not in text.replace("http://www.w3.org/2000/svg", "")
    svg = text[text.index("<svg") : text.index("</svg>") + 6]
    assert len(ET.fromstring(svg).findall(".//{http://www.w3.org/2000/svg}g")) == 1  # noqa: S314


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_every_edge_points_down_and_no_boxes_touch(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 14))
    pairs = [(a, b) for b in range(count) for a in range(b)]
    edges = data.draw(st.lists(st.sampled_from(pairs), unique=True, max_size=24)) if pairs else []
    drawn = layered(count, edges)
    for upper, lower in edges:
        assert drawn.boxes[upper][1] < drawn.boxes[lower][1]
    spots = sorted((y, x) for x, y in drawn.boxes)
    for (y0, x0), (y1, x1) in pairwise(spots):
        assert y1 > y0 or x1 - x0 >= 168
    assert all(0 <= x <= drawn.width and 0 <= y <= drawn.height for x, y in drawn.boxes)
    assert drawn == layered(count, edges)


def test_a_cycle_is_refused() -> None:
    with pytest.raises(ValueError, match="cycle"):
        layered(2, [(0, 1), (1, 0)])


def test_the_roof_is_measured_once_for_a_kind_of_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(roofline, "_bandwidth", lambda: 1e10)
    monkeypatch.setattr(roofline, "_arithmetic", lambda: (1e11, 4e11))
    made = roof(tmp_path)
    assert made.attainable(1.0) == 1e10
    assert made.attainable(1e6) == 1e11
    assert made.attainable(1e6, int8=True) == 4e11
    monkeypatch.setattr(roofline, "_bandwidth", lambda: pytest.fail("measured twice"))
    assert roof(tmp_path) == made
    monkeypatch.setattr(roofline, "_bandwidth", lambda: 2e10)
    kept = next(tmp_path.glob("*.json"))
    for damage in (b"", b"{", b'{"version": 99}', kept.read_bytes().replace(b"10000000000", b"-1")):
        kept.write_bytes(damage)
        assert roof(tmp_path).bandwidth == 2e10
    blocked = tmp_path / "a file"
    blocked.write_text("")
    assert roof(blocked / "below").bandwidth == 2e10


@pytest.mark.serial
def test_the_machine_is_really_measured(tmp_path: Path) -> None:
    found = roof(tmp_path)
    assert 1e8 < found.bandwidth < 1e13
    assert 1e8 < found.float32 < 1e14
    assert found.machine.fingerprint == this_machine().fingerprint
