from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from modelyard.core.digest import digest_bytes
from modelyard.core.errors import ModelError, ObjectMissing
from modelyard.model.onnx_runtime import OnnxRuntime
from modelyard.model.reader import Limits, read_model

Make = Callable[..., onnx.ModelProto]


def read(model: onnx.ModelProto | bytes, **options: Any) -> Any:
    data = model if isinstance(model, bytes) else model.SerializeToString()
    return read_model(data, task=options.pop("task", "regression"), **options)


def refused(model: onnx.ModelProto | bytes, *words: str, **options: Any) -> ModelError:
    with pytest.raises(ModelError) as caught:
        read(model, **options)
    for word in words:
        assert word in str(caught.value), str(caught.value)
    return caught.value


class Blobs:
    """The least that an object store can be."""

    def __init__(self, data: dict[str, bytes]) -> None:
        self.data = data

    def get(self, digest: str) -> bytes:
        if digest not in self.data:
            raise ObjectMissing("no such object", value=digest)
        return self.data[digest]


def external(location: str, **more: str) -> onnx.ModelProto:
    weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[3, 1])
    weight.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **more}.items():
        weight.external_data.add(key=key, value=value)
    model = make_linear()
    model.graph.initializer[0].CopyFrom(weight)
    return model


def make_linear() -> onnx.ModelProto:
    weight = onnx.numpy_helper.from_array(np.array([[1.0], [2.0], [3.0]], np.float32), "w")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["prediction"], name="mm")],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3])],
        [helper.make_tensor_value_info("prediction", TensorProto.FLOAT, ["N", 1])],
        [weight],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def test_a_good_graph_is_read_and_reading_is_idempotent(linear_model: onnx.ModelProto) -> None:
    model = read(linear_model)
    assert model.signature.inputs[0].shape == (-1, 3)
    assert read(model.onnx).onnx == model.onnx
    assert model.size == len(model.onnx)


def test_metadata_and_documentation_do_not_survive(linear_model: onnx.ModelProto) -> None:
    secret = "/home/alice/secret.py"
    linear_model.doc_string = linear_model.graph.doc_string = linear_model.graph.node[0].doc_string = secret
    linear_model.graph.initializer[0].doc_string = linear_model.graph.input[0].doc_string = secret
    linear_model.metadata_props.add(key="pkg.torch.stack", value=secret)
    linear_model.graph.node[0].metadata_props.add(key="trace", value=secret)
    linear_model.graph.metadata_props.add(key="trace", value=secret)
    model = read(linear_model)
    assert b"alice" not in model.onnx
    plain = make_linear()
    assert model.onnx == read(plain).onnx


@pytest.mark.parametrize(
    "location", ["../../etc/passwd", "/etc/passwd", "weights.bin", "", "sha256:zz", "*/_ORT_MEM_ADDR_/*"]
)
def test_no_path_is_ever_opened(location: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "weights.bin").write_bytes(np.ones(3, np.float32).tobytes())
    (tmp_path / "link").symlink_to("/etc/passwd")
    monkeypatch.chdir(tmp_path)
    opened: list[str] = []
    real = os.open
    monkeypatch.setattr(
        os, "open", lambda *args, **kwargs: opened.append(str(args[0])) or real(*args, **kwargs)
    )
    refused(external(location), "outside the file")
    refused(external("link"), "outside the file")
    assert opened == []


def test_external_data_is_found_wherever_it_hides(graph: Make) -> None:
    bad = external("../x").graph.initializer[0]
    constant = helper.make_node("Constant", [], ["w"], value=bad)
    refused(graph([constant, helper.make_node("MatMul", ["x", "w"], ["prediction"])]), "outside the file")
    inner = helper.make_graph(
        [constant], "inner", [], [helper.make_tensor_value_info("w", TensorProto.FLOAT, [3, 1])]
    )
    branch = helper.make_node("If", ["flag"], ["w2"], then_branch=inner, else_branch=inner)
    flag = helper.make_tensor("flag", TensorProto.BOOL, [], [True])
    nodes = [branch, helper.make_node("MatMul", ["x", "w2"], ["prediction"])]
    refused(graph(nodes, initializers=[flag]), "outside the file")
    function = helper.make_function(
        "own", "F", ["a"], ["b"], [constant, helper.make_node("MatMul", ["a", "w"], ["b"])],
        [helper.make_opsetid("", 20)],
    )  # fmt: skip
    call = helper.make_node("F", ["x"], ["prediction"], domain="own")
    refused(graph([call], functions=[function], opsets={"": 20, "own": 1}), "outside the file")


def test_a_digest_pinned_blob_is_verified_and_put_inside() -> None:
    data = np.array([1, 2, 3], np.float32).tobytes()
    digest = digest_bytes(b"xx" + data)
    model = read(external(digest, offset="2", length="12"), blobs=Blobs({digest: b"xx" + data}))
    session = OnnxRuntime().load(model)
    assert session.run({"x": np.ones((1, 3), np.float32)})["prediction"] == 6
    refused(external(digest), "give the store")
    refused(external(digest), "cannot be read", blobs=Blobs({}))
    refused(external(digest), "another digest", blobs=Blobs({digest: b"forged"}))
    for more in ({"offset": "99"}, {"length": "9" * 30}, {"offset": "-1"}):
        refused(external(digest, **more), blobs=Blobs({digest: b"xx" + data}))


@pytest.mark.parametrize("dims", [[1 << 32, 1 << 32], [1 << 40], [-1], [1 << 62, 4, 0], [1] * 40])
def test_impossible_shapes_of_constants(dims: list[int]) -> None:
    model = make_linear()
    del model.graph.initializer[0].dims[:]
    model.graph.initializer[0].dims.extend(dims)
    refused(model)


def test_a_shape_that_lies_about_its_data() -> None:
    model = make_linear()
    model.graph.initializer[0].dims[0] = 30
    refused(model, "does not hold what its shape says")


def test_a_small_graph_that_would_make_a_huge_tensor(graph: Make) -> None:
    shape = onnx.numpy_helper.from_array(np.array([1 << 20, 1 << 20], np.int64), "shape")
    nodes = [
        helper.make_node("ConstantOfShape", ["shape"], ["big"]),
        helper.make_node("ReduceSum", ["big"], ["sum"]),
        helper.make_node("ReduceSum", ["x", "axis"], ["row"]),
        helper.make_node("Add", ["row", "sum"], ["prediction"]),
    ]
    axis = onnx.numpy_helper.from_array(np.array([1], np.int64), "axis")
    refused(graph(nodes, initializers=[shape, axis]), "too large")


def test_sparse_tensors_are_measured_dense(graph: Make) -> None:
    sparse = helper.make_sparse_tensor(
        helper.make_tensor("w", TensorProto.FLOAT, [1], [1.0]),
        helper.make_tensor("i", TensorProto.INT64, [1], [0]),
        [1 << 30, 1 << 30],
    )
    model = graph([helper.make_node("MatMul", ["x", "w"], ["prediction"])])
    model.graph.sparse_initializer.append(sparse)
    refused(model, "too large")


def nested(depth: int) -> onnx.GraphProto:
    info = helper.make_tensor_value_info(f"o{depth}", TensorProto.FLOAT, ["N", 1])
    if depth == 0:
        node = helper.make_node("ReduceSum", ["x", "axis"], ["o0"])
    else:
        inner = nested(depth - 1)
        node = helper.make_node("If", ["flag"], [f"o{depth}"], then_branch=inner, else_branch=inner)
    return helper.make_graph([node], f"g{depth}", [], [info])


def test_deep_nesting(graph: Make) -> None:
    flag = helper.make_tensor("flag", TensorProto.BOOL, [], [True])
    axis = onnx.numpy_helper.from_array(np.array([1], np.int64), "axis")
    body = nested(12)
    nodes = [*body.node, helper.make_node("Identity", ["o12"], ["prediction"])]
    refused(graph(nodes, initializers=[flag, axis]), "nest too deeply")
    data = b""
    for _ in range(400):
        size = len(data)
        length = bytes([size & 0x7F | 0x80, size >> 7]) if size > 127 else bytes([size])
        data = b"\x32" + length + data if data else b"\x32\x00"
    refused(data)


def billion_laughs(levels: int, *, circle: bool = False) -> onnx.ModelProto:
    imports = [helper.make_opsetid("", 20), helper.make_opsetid("own", 1)]
    functions = []
    for level in range(levels):
        name = f"F{level - 1}" if level else (f"F{levels - 1}" if circle else "Neg")
        domain = "" if level == 0 and not circle else "own"
        nodes = [helper.make_node(name, [f"t{i}"], [f"t{i + 1}"], domain=domain) for i in range(10)]
        functions.append(helper.make_function("own", f"F{level}", ["t0"], ["t10"], nodes, imports))
    model = make_linear()
    model.graph.node[0].output[0] = "y"
    model.graph.node.append(helper.make_node(f"F{levels - 1}", ["y"], ["prediction"], domain="own"))
    model.opset_import.add(domain="own", version=1)
    model.functions.extend(functions)
    return model


def test_functions_that_write_out_to_billions_of_nodes() -> None:
    assert read(billion_laughs(2)).onnx
    start = time.monotonic()
    refused(billion_laughs(60), "too many nodes")
    refused(billion_laughs(900), "too many nodes")
    refused(billion_laughs(3, circle=True), "circle")
    assert time.monotonic() - start < 10


def loop(trips: Any, *, wired: bool = True) -> onnx.ModelProto:
    value = helper.make_tensor_value_info
    body = helper.make_graph(
        [helper.make_node("Identity", ["c"], ["c2"]), helper.make_node("Add", ["v", "v"], ["v2"])],
        "body",
        [
            value("i", TensorProto.INT64, []),
            value("c", TensorProto.BOOL, []),
            value("v", TensorProto.FLOAT, None),
        ],
        [value("c2", TensorProto.BOOL, []), value("v2", TensorProto.FLOAT, None)],
    )
    model = make_linear()
    model.graph.node[0].output[0] = "y"
    model.graph.initializer.append(helper.make_tensor("go", TensorProto.BOOL, [], [True]))
    if wired:
        model.graph.initializer.append(helper.make_tensor("m", TensorProto.INT64, [], [trips]))
    node = helper.make_node("Loop", ["m" if wired else "", "go", "y"], ["prediction"], body=body, name="spin")
    model.graph.node.append(node)
    return model


def test_loops_need_a_small_constant_count() -> None:
    assert read(loop(3)).onnx
    refused(loop(1 << 62), "has no bound")
    refused(loop(0, wired=False), "has no bound")


def test_a_circle_of_nodes(graph: Make) -> None:
    nodes = [helper.make_node("Add", ["x", "b"], ["a"]), helper.make_node("Neg", ["a"], ["b"])]
    refused(graph([*nodes, helper.make_node("Identity", ["b"], ["prediction"])]), "nothing before it makes")


@pytest.mark.parametrize(
    ("domain", "kind"),
    [("evil.com", "Shell"), ("", "NoSuchOp"), ("com.microsoft", "EPContext"), ("ai.onnx.training", "Adam")],
)
def test_operators_outside_the_list(graph: Make, domain: str, kind: str) -> None:
    node = helper.make_node(kind, ["x"], ["prediction"], domain=domain)
    error = refused(graph([node], opsets={"": 20, domain: 1} if domain else None), "not allowed")
    assert kind in str(error.value)


def test_names_and_counts(graph: Make) -> None:
    identity = lambda a, b: helper.make_node("Identity", [a], [b])  # noqa: E731
    refused(graph([identity("nowhere", "prediction")]), "nowhere")
    refused(graph([identity("x", "prediction"), identity("x", "prediction")]), "exists already")
    refused(graph([identity("x", "x")]), "exists already")
    refused(graph([identity("x", "other")]), "promises an output")
    two = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3])] * 2
    refused(graph([identity("x", "prediction")], inputs=two), "a name twice")
    unnamed = [helper.make_tensor_value_info("", TensorProto.FLOAT, ["N", 3])]
    refused(graph([identity("x", "prediction")], inputs=unnamed), "empty name")
    refused(make_linear(), "too many nodes", limits=Limits(nodes=0))
    refused(make_linear(), "too many constants", limits=Limits(initializers=0))
    refused(make_linear(), "too large", limits=Limits(bytes=10))
    refused(make_linear(), "too many parts", limits=Limits(messages=5))
    refused(make_linear(), "too large", limits=Limits(elements=2))
    old = make_linear()
    old.opset_import[0].version = 2
    refused(old, "version")
    old.opset_import[0].version = 1000
    refused(old, "version")
    training = make_linear()
    training.training_info.add()
    refused(training, "training")


@pytest.mark.parametrize(
    ("kind", "shape", "words"),
    [
        (TensorProto.FLOAT, [4, 3], "fixed batch"),
        (TensorProto.FLOAT, ["N"], "one dimension"),
        (TensorProto.FLOAT, [], "no shape"),
        (TensorProto.COMPLEX64, ["N", 3], "datatype"),
        (TensorProto.FLOAT, ["N", 0], "impossible"),
    ],
)
def test_inputs_that_break_the_tensor_rule(kind: int, shape: list[Any], words: str) -> None:
    model = make_linear()
    model.graph.input[0].CopyFrom(helper.make_tensor_value_info("x", kind, shape))
    with pytest.raises(ModelError) as caught:
        read(model)
    assert words in str(caught.value) or "onnx" in str(caught.value)


def test_outputs_that_break_the_tensor_rule(linear_model: onnx.ModelProto) -> None:
    refused(linear_model, "needs an output named 'probabilities'", task="classification")
    model = make_linear()
    model.graph.node[0].output[0] = model.graph.output[0].name = "probabilities"
    refused(model, "[N, 3]", task="classification", labels=("a", "b", "c"))
    refused(model, "same name", task="classification", labels=("a", "a"))


def test_names_that_are_not_text() -> None:
    data = make_linear().SerializeToString()
    refused(data.replace(b"\x0a\x01x", b"\x0a\x01\xff"), "not an ONNX file")


def test_rubbish() -> None:
    good = make_linear().SerializeToString()
    for data in (
        b"",
        b"\0",
        b"\xff" * 100,
        b"PK\x03\x04",
        b"\x80\x04\x95",
        good[:-3],
        good + b"\x3a\xff\x7f",
    ):
        refused(data)
    generator = random.Random(0)  # noqa: S311
    for size in (1, 10, 1000, 100_000):
        refused(generator.randbytes(size))


def test_many_small_messages_are_counted_before_they_are_parsed() -> None:
    body = b"\x0a\x00" * 600_000  # a node of two bytes becomes a hundred in a parser
    length = len(body)
    varint = bytes([length & 0x7F | 0x80, length >> 7 & 0x7F | 0x80, length >> 14])
    refused(b"\x3a" + varint + body, "too many parts", limits=Limits(messages=100_000))


SEEDS = [
    make_linear().SerializeToString(),
    loop(3).SerializeToString(),
    billion_laughs(2).SerializeToString(),
]
X = np.ones((2, 3), np.float32)


@settings(max_examples=150, deadline=2000, derandomize=True)
@given(
    st.sampled_from(SEEDS),
    st.lists(
        st.tuples(st.integers(0, 2000), st.integers(0, 255), st.sampled_from("sdi")), min_size=1, max_size=6
    ),
)
def test_mutated_bytes_give_a_model_or_a_model_error(seed: bytes, edits: list[tuple[int, int, str]]) -> None:
    data = bytearray(seed)
    for where, value, kind in edits:
        at = where % len(data)
        if kind == "s":
            data[at] = value
        elif kind == "d":
            del data[at]
        else:
            data.insert(at, value)
    try:
        model = read(bytes(data))
        session = OnnxRuntime().load(model)
        session.run({spec.name: X for spec in model.signature.inputs})
    except ModelError:
        return
    assert read(model.onnx).onnx == model.onnx
