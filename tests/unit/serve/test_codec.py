"""The protocol codec: what it reads and writes, and that it fails only in the way it says."""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from modelyard.core.errors import RequestError
from modelyard.core.spec import DATATYPES, TensorSpec, numpy_type
from modelyard.serve.answered import Answered
from modelyard.serve.codec.elements import MAX_RANK, from_bytes, from_values, to_bytes, to_values
from modelyard.serve.codec.inference import Asked, Wanted, read_request, write_answer
from modelyard.serve.codec.plain import PlainReader, PlainWriter
from modelyard.serve.codec.rows import read_rows, write_rows

LIMITS = {"elements": 1_000, "rows": 100}


def read(value: Any, tail: bytes = b"", binary: bool = False) -> Asked:
    head = value if isinstance(value, bytes) else orjson.dumps(value)
    return read_request(head + tail, len(head) if binary or tail else None, **LIMITS)


def tensor(**changes: Any) -> dict[str, Any]:
    whole = {"name": "x", "datatype": "FP32", "shape": [2, 1], "data": [1.0, 2.0]}
    return {key: value for key, value in (whole | changes).items() if value is not ...}


def refusal(value: Any, tail: bytes = b"", binary: bool = False) -> str:
    with pytest.raises(RequestError) as caught:
        read(value, tail, binary)
    assert 400 <= caught.value.status < 500
    return str(caught.value)


def test_json_tensors_of_every_datatype() -> None:
    samples: dict[str, list[Any]] = {"BOOL": [True, False], "BYTES": ["a", "ü"], "FP16": [0.5, -2.0]}
    for datatype in DATATYPES:
        data = samples.get(datatype, [1, 2])
        asked = read({"inputs": [tensor(datatype=datatype, data=data)]})
        assert asked.inputs["x"].dtype == numpy_type(datatype)
        assert asked.inputs["x"].ravel().tolist() == data
        assert asked.rows == 2


def test_nested_data_is_the_same_as_flat() -> None:
    nested = read({"inputs": [tensor(shape=[2, 3], data=[[1, 2, 3], [4, 5, 6]])]})
    assert nested.inputs["x"].tolist() == [[1, 2, 3], [4, 5, 6]]


def test_null_and_nan_are_missing() -> None:
    assert np.isnan(read({"inputs": [tensor(data=[None, 1])]}).inputs["x"][0, 0])
    written = json.dumps({"inputs": [tensor(data=[float("nan"), float("inf")])]}).encode()
    assert np.isnan(read(written).inputs["x"][0, 0])
    assert np.isinf(read(written).inputs["x"][1, 0])


def test_id_key_and_outputs() -> None:
    asked = read({
        "id": "7", "parameters": {"key": "client", "binary_data_output": True}, "inputs": [tensor()],
        "outputs": [{"name": "a"}, {"name": "b", "parameters": {"binary_data": False}}],
    })  # fmt: skip
    assert (asked.id, asked.key, asked.binary) == ("7", "client", True)
    assert asked.outputs == (Wanted("a", True), Wanted("b", False))
    assert read({"id": "7", "inputs": [tensor()]}).key == "7"


BAD = {
    "no inputs": ({}, "inputs"),
    "inputs no list": ({"inputs": {"x": 1}}, "inputs"),
    "empty inputs": ({"inputs": []}, "inputs"),
    "input no object": ({"inputs": [3]}, "inputs[0]"),
    "no name": ({"inputs": [tensor(name=...)]}, "inputs[0].name"),
    "name no text": ({"inputs": [tensor(name=4)]}, "inputs[0].name"),
    "twice": ({"inputs": [tensor(), tensor()]}, "twice"),
    "datatype": ({"inputs": [tensor(datatype="FP31")]}, "did you mean"),
    "no datatype": ({"inputs": [tensor(datatype=...)]}, "datatype"),
    "datatype list": ({"inputs": [tensor(datatype=["FP32"])]}, "datatype"),
    "no shape": ({"inputs": [tensor(shape=...)]}, "shape"),
    "negative shape": ({"inputs": [tensor(shape=[-1, 1])]}, "shape"),
    "negative pair": ({"inputs": [tensor(shape=[-2, -1])]}, "shape"),
    "float shape": ({"inputs": [tensor(shape=[2.0, 1])]}, "shape"),
    "boolean shape": ({"inputs": [tensor(shape=[True, 2])]}, "shape"),
    "text shape": ({"inputs": [tensor(shape="2,1")]}, "shape"),
    "scalar": ({"inputs": [tensor(shape=[], data=[1.0])]}, "shape"),
    "high rank": ({"inputs": [tensor(shape=[1] * (MAX_RANK + 1))]}, "shape"),
    "huge shape": ({"inputs": [tensor(shape=[2**40, 2**40])]}, "large"),
    "huge by empty": ({"inputs": [tensor(shape=[2**62, 0], data=[])]}, "large"),
    "no items": ({"inputs": [tensor(shape=[0, 1], data=[])]}, "items"),
    "too many items": ({"inputs": [tensor(shape=[101, 1], data=[1] * 101)]}, "items"),
    "different items": ({"inputs": [tensor(), tensor(name="y", shape=[1, 1], data=[1])]}, "items"),
    "no data": ({"inputs": [tensor(data=...)]}, "data"),
    "data no list": ({"inputs": [tensor(data="12")]}, "data"),
    "short data": ({"inputs": [tensor(data=[1.0])]}, "fill"),
    "long data": ({"inputs": [tensor(data=[1.0, 2.0, 3.0])]}, "fill"),
    "text number": ({"inputs": [tensor(data=["1", 2])]}, "data[0]"),
    "object number": ({"inputs": [tensor(data=[1.0, {}])]}, "data[1]"),
    "late list": ({"inputs": [tensor(data=[1.0, [2.0]])]}, "data[1]"),
    "ragged": ({"inputs": [tensor(shape=[2, 2], data=[[1, 2], [3]])]}, "nested"),
    "flat in nested": ({"inputs": [tensor(shape=[2, 2], data=[[1, 2], 3])]}, "nested"),
    "too deep": ({"inputs": [tensor(data=[[[1.0]], [[2.0]]])]}, "data"),
    "float in whole": ({"inputs": [tensor(datatype="INT64", data=[1.5, 2])]}, "data[0]"),
    "out of range": ({"inputs": [tensor(datatype="INT8", data=[1, 300])]}, "data[1]"),
    "negative unsigned": ({"inputs": [tensor(datatype="UINT32", data=[1, -1])]}, "data[1]"),
    "null whole": ({"inputs": [tensor(datatype="INT64", data=[1, None])]}, "data[1]"),
    "number as truth": ({"inputs": [tensor(datatype="BOOL", data=[True, 1])]}, "data[1]"),
    "number as text": ({"inputs": [tensor(datatype="BYTES", data=["a", 1])]}, "data[1]"),
    "id": ({"id": 3, "inputs": [tensor()]}, "id"),
    "long id": ({"id": "x" * 300, "inputs": [tensor()]}, "id"),
    "parameters": ({"parameters": [], "inputs": [tensor()]}, "parameters"),
    "outputs": ({"inputs": [tensor()], "outputs": "x"}, "outputs"),
    "output no object": ({"inputs": [tensor()], "outputs": ["x"]}, "outputs[0]"),
    "output twice": ({"inputs": [tensor()], "outputs": [{"name": "x"}, {"name": "x"}]}, "twice"),
    "classification": (
        {"inputs": [tensor()], "outputs": [{"name": "x", "parameters": {"classification": 1}}]},
        "classification",
    ),
    "binary without body": (
        {"inputs": [tensor(data=..., parameters={"binary_data_size": 8})]}, "binary_data_size",
    ),
    "binary size no number": (
        {"inputs": [tensor(data=..., parameters={"binary_data_size": "8"})]}, "binary_data_size",
    ),
    "negative binary": (
        {"inputs": [tensor(data=..., parameters={"binary_data_size": -8})]}, "binary_data_size",
    ),
    "no object": ([1], "object"),
    "no JSON": (b"{", "JSON"),
    "empty": (b"", "JSON"),
    "broken NaN": (b'{"a": NaN', "JSON"),
    "not UTF-8": (b'{"id": "\xff"}', "JSON"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_requests_name_the_field(name: str) -> None:
    value, word = BAD[name]
    assert word in refusal(value)


def test_deep_nesting_is_refused() -> None:
    assert "JSON" in refusal(b'{"inputs":' + b"[" * 100_000 + b"]" * 100_000 + b"}")
    assert "JSON" in refusal(b'{"NaN":' + b"[" * 100_000 + b"]" * 100_000 + b"}")


def test_binary_tensors() -> None:
    values = np.array([[1.5], [-2.0]], np.float32)
    texts = b"".join(struct.pack("<I", len(text)) + text for text in (b"a", "ü".encode()))
    asked = read(
        {"inputs": [
            tensor(data=..., parameters={"binary_data_size": 8}),
            tensor(name="t", datatype="BYTES", data=..., parameters={"binary_data_size": len(texts)}),
            tensor(name="j"),
        ]},
        values.tobytes() + texts,
    )  # fmt: skip
    assert asked.inputs["x"].tolist() == values.tolist()
    assert asked.inputs["t"].tolist() == [["a"], ["ü"]]
    assert asked.inputs["j"].tolist() == [[1.0], [2.0]]


def binary(**changes: Any) -> dict[str, Any]:
    return {"inputs": [tensor(**({"data": ..., "parameters": {"binary_data_size": 8}} | changes))]}


def test_bad_binary_bodies() -> None:
    text = binary(datatype="BYTES")
    assert "length" in refusal(binary(shape=[3, 1]), b"x" * 8)
    assert "left over" in refusal(binary(), b"x" * 9)
    assert "binary_data_size" in refusal(binary(), b"x" * 7)
    assert "twice" in refusal(binary(data=[1, 2]), b"x" * 8)
    assert "longer" in refusal(text, struct.pack("<I", 2**32 - 1) + b"abcd")
    assert "short" in refusal(binary(datatype="BYTES", shape=[3, 1]), b"\0" * 8)
    assert "UTF-8" in refusal(text, struct.pack("<I", 1) + b"\xff" + b"\0" * 3)
    assert "left over" in refusal(binary(datatype="BYTES", shape=[1, 1]), struct.pack("<I", 0) + b"abcd")
    with pytest.raises(RequestError, match="Content-Length"):
        read_request(b"{}", 3, **LIMITS)
    with pytest.raises(RequestError, match="Content-Length"):
        read_request(b"{}", -1, **LIMITS)


def test_who_is_refused_is_refused_before_the_tensors_are_read() -> None:
    told: list[float | None] = []

    def full(timeout: float | None) -> None:
        told.append(timeout)
        raise RequestError("full", status=503)

    wrong = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": ["not", "read"]}]}
    for parameters in ({}, {"parameters": {"timeout": 250_000}}):
        with pytest.raises(RequestError, match="full"):
            read_request(orjson.dumps(wrong | parameters), None, **LIMITS, admit=full)
    assert told == [None, 0.25]
    with pytest.raises(RequestError, match="timeout"):
        read_request(orjson.dumps(wrong | {"parameters": {"timeout": "soon"}}), None, **LIMITS, admit=full)


@settings(max_examples=120, deadline=None)
@given(st.data())
def test_whatever_json_comes_is_read_or_refused(data: st.DataObject) -> None:
    leaves = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(max_size=5)
    anything = st.recursive(
        leaves,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
        max_leaves=8,
    )
    field = st.sampled_from(["name", "datatype", "shape", "data", "parameters"])
    value = tensor() | {data.draw(field): data.draw(anything)}
    request: dict[str, Any] = {"inputs": [value]}
    if data.draw(st.booleans()):
        request[data.draw(st.sampled_from(["id", "parameters", "outputs", "inputs"]))] = data.draw(anything)
    body = json.dumps(request).encode()
    try:
        asked = read_request(body, None, **LIMITS)
    except RequestError as error:
        assert 400 <= error.status < 500
    else:
        assert all(len(array) == asked.rows for array in asked.inputs.values())


@settings(max_examples=120, deadline=None)
@given(st.binary(max_size=64), st.integers(-5, 80), st.sampled_from(DATATYPES), st.integers(0, 40))
def test_whatever_bytes_come_are_read_or_refused(tail: bytes, length: int, datatype: str, size: int) -> None:
    head = orjson.dumps(binary(datatype=datatype, parameters={"binary_data_size": size}))
    for body, at in ((head + tail, len(head)), (tail, length), (head + tail, length)):
        try:
            read_request(body, at, **LIMITS)
        except RequestError as error:
            assert 400 <= error.status < 500


@settings(max_examples=80, deadline=None)
@given(
    st.sampled_from([name for name in DATATYPES if name != "BYTES"]).flatmap(
        lambda name: hnp.arrays(numpy_type(name), hnp.array_shapes(max_dims=3, max_side=4))
    )
)
def test_numbers_survive_both_ways(values: np.ndarray) -> None:
    datatype = next(name for name in DATATYPES if numpy_type(name) == values.dtype)
    shape, count = values.shape, values.size
    raw = from_bytes(memoryview(to_bytes(values)), datatype, shape, count, "x")
    np.testing.assert_array_equal(raw, values)
    text = orjson.loads(orjson.dumps(to_values(values), option=orjson.OPT_SERIALIZE_NUMPY))
    if values.dtype.kind == "f":
        # JSON has no infinity: what is not a finite number comes back as missing.
        values = np.where(np.isfinite(values), values, np.nan).astype(values.dtype)
    np.testing.assert_array_equal(from_values(text, datatype, shape, count, "x"), values)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.text(), min_size=1, max_size=5))
def test_texts_survive_binary(texts: list[str]) -> None:
    texts = [text.encode("utf-8", "replace").decode() for text in texts]
    values = np.array(texts, dtype=object)
    assert from_bytes(memoryview(to_bytes(values)), "BYTES", (len(texts),), len(texts), "x").tolist() == texts


def test_answers_keep_to_what_was_asked() -> None:
    outputs = {"a": np.array([[1.0]], np.float32), "b": np.array([["x"]], dtype=object)}
    body, head = write_answer("e", "3", "id", outputs)
    assert head is None
    assert orjson.loads(body) == {
        "model_name": "e", "model_version": "3", "id": "id",
        "outputs": [
            {"name": "a", "datatype": "FP32", "shape": [1, 1], "data": [1.0]},
            {"name": "b", "datatype": "BYTES", "shape": [1, 1], "data": ["x"]},
        ],
    }  # fmt: skip
    body, head = write_answer("e", "3", "id", outputs, wanted=(Wanted("b", True), Wanted("a", False)))
    assert head is not None
    described = orjson.loads(body[:head])["outputs"]
    assert [item["name"] for item in described] == ["b", "a"]
    assert described[0]["parameters"] == {"binary_data_size": 5}
    assert body[head:] == b"\1\0\0\0x"


def test_rows() -> None:
    asked = read_rows(b'{"rows": [{"a": 1}], "id": "i"}', limit=2)
    assert (asked.rows, asked.id, asked.key) == ([{"a": 1}], "i", "i")
    for body in (b"{}", b'{"rows": []}', b'{"rows": [1]}', b'{"rows": {}}', b'{"rows": [{},{},{}]}',
                 b'{"rows": [{}], "key": 1}', b"[]", b"x"):  # fmt: skip
        with pytest.raises(RequestError) as caught:
            read_rows(body, limit=2)
        assert 400 <= caught.value.status < 500


def test_row_answers() -> None:
    outputs = {"probabilities": np.array([[0.25, 0.75], [0.5, 0.5]], np.float32)}
    value = orjson.loads(write_rows("e", "sha256:0", "2", "r", outputs, labels=("no", "yes")))
    assert value["predictions"] == [
        {"id": "r.0", "label": "yes", "confidence": 0.75, "probabilities": {"no": 0.25, "yes": 0.75}},
        {"id": "r.1", "label": "no", "confidence": 0.5, "probabilities": {"no": 0.5, "yes": 0.5}},
    ]
    value = orjson.loads(write_rows("e", "sha256:0", "2", "r", {"prediction": np.array([[2.0]])}, labels=()))
    assert value["predictions"] == [{"id": "r", "prediction": 2.0}]


@pytest.mark.parametrize("count", [4, 2_000])
def test_a_number_too_large_for_its_type_wants_a_closer_look(count: int) -> None:
    numbers = [1.5] * (count - 1) + [1e39]
    body = json.dumps({"inputs": [{"name": "x", "shape": [1, count], "datatype": "FP32", "data": numbers}]})
    assert PlainReader(elements=10_000, rows=10).read(body.encode()) is None
    double = PlainReader(elements=10_000, rows=10).read(body.replace("FP32", "FP64").encode())
    assert double is not None and double.inputs["x"].ravel().tolist() == numbers


@st.composite
def raw_bodies(draw: st.DrawFn) -> tuple[bytes, int]:
    """Bodies with tensors behind their heads, most of them right, and some of them ordinary."""
    tensors, tails = [], []
    for name in draw(st.lists(st.sampled_from(["x", "y", "", "a:b"]), min_size=0, max_size=2)):
        datatype = draw(st.sampled_from(["FP32", "FP64", "INT64", "UINT8", "FP16", "BOOL", "FP99"]))
        shape = draw(st.lists(st.integers(0, 3), min_size=0, max_size=3))
        width = {"FP32": 4, "FP64": 8, "INT64": 8, "FP16": 2}.get(datatype, 1)
        size = int(np.prod(shape)) * width
        tails.append(draw(st.binary(min_size=size, max_size=size)))
        size += draw(st.sampled_from([0, 0, 0, 0, 1, -1]))
        given = draw(st.sampled_from([{}, {}, {}, {"data": [1]}, {"more": 1}]))
        tensors.append({"name": name, "shape": shape, "datatype": datatype,
                        "parameters": {"binary_data_size": size}} | given)  # fmt: skip
    head: dict[str, Any] = {"inputs": tensors}
    if draw(st.booleans()):
        head["id"] = draw(st.sampled_from(["", "r", "a:b", "i" * 300, 7]))
    if draw(st.booleans()):
        head["parameters"] = draw(st.dictionaries(
            st.sampled_from(["binary_data_output", "timeout", "key", "priority"]),
            st.sampled_from([True, False, 0, 1, 250_000, -1, 10**18, "k", None, 1.5]),
        ))  # fmt: skip
    if draw(st.booleans()):
        asked = {"name": "z", "parameters": {"binary_data": draw(st.sampled_from([True, True, False, None]))}}
        head["outputs"] = [asked] * draw(st.integers(0, 2))
    text = orjson.dumps(head)
    if draw(st.integers(0, 5)) == 0:
        # A key twice, in one of the places where a parser may overlook it.
        text = text.replace(
            b'{"name"', draw(st.sampled_from([b'{"name":"q","name"', b'{ "name"', b'{"na me"']))
        )
    return text + b"".join(tails) + draw(st.sampled_from([b"", b"", b"", b"x"])), len(text)


@settings(max_examples=400, deadline=None)
@given(raw_bodies(), st.sampled_from([0, 0, 0, 0, 1, -1]))
def test_raw_bodies_are_read_the_short_way_as_the_long_way(made: tuple[bytes, int], off: int) -> None:
    body, at = made[0], made[1] + off
    short = PlainReader(**LIMITS).read_raw(body, str(at))
    if short is None:
        return
    long = read_request(body, at, **LIMITS)
    assert (short.id, short.rows, short.outputs, short.key) == (long.id, long.rows, long.outputs, long.key)
    assert short.timeout == long.timeout and (short.outputs is not None or short.binary == long.binary)
    assert list(short.inputs) == list(long.inputs)
    for name, values in short.inputs.items():
        assert values.dtype == long.inputs[name].dtype and values.shape == long.inputs[name].shape
        assert values.tobytes() == long.inputs[name].tobytes() and values.flags.aligned


def test_the_ordinary_raw_body_takes_the_short_way() -> None:
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    tensor = {"name": "x", "shape": [2, 3], "datatype": "FP32", "parameters": {"binary_data_size": 24}}
    raw = {"name": "z", "parameters": {"binary_data": True}}
    for more, binary in (({}, False), ({"parameters": {"binary_data_output": True, "timeout": 1_000}}, True),
                         ({"outputs": [raw], "id": "r"}, True)):  # fmt: skip
        head = orjson.dumps({"inputs": [tensor]} | more)
        asked = PlainReader(**LIMITS).read_raw(head + values.tobytes(), str(len(head)))
        assert asked is not None and asked.binary is binary and asked.id == more.get("id", "")
        np.testing.assert_array_equal(asked.inputs["x"], values)
    for length in ("", "-1", "x", "\u0661", "9" * 5_000, "0", str(len(head) + 25)):
        assert PlainReader(**LIMITS).read_raw(head + values.tobytes(), length) is None


def test_raw_answers_are_written_the_short_way_as_the_long_way() -> None:
    outputs = (TensorSpec("z", "FP32", (-1, 3)), TensorSpec("w", "FP64", (-1, 1)))
    whole = {"z": np.arange(12, dtype=np.float32).reshape(4, 3), "w": np.ones((4, 1))}
    part = Answered({name: values[1:3] for name, values in whole.items()}, whole, 1, {})
    writer = PlainWriter("e", "2", outputs)
    assert writer.names == ("z", "w")
    assert writer.write_raw("r", 2, part) == write_answer("e", "2", "r", part, binary=True)
