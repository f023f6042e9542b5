"""TensorFlow Serving's bodies: what is read, what is written, and what is refused by name."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelyard.core.errors import RequestError
from modelyard.core.spec import TensorSpec
from modelyard.serve.codec.tfserving import (
    read_examples,
    read_predict,
    tensors_of,
    write_classify,
    write_metadata,
    write_predict,
    write_regress,
    write_status,
)

IMAGE = (TensorSpec("x", "FP32", (-1, 2, 2)),)
MIXED = (TensorSpec("size", "FP32", (-1, 1)), TensorSpec("note", "BYTES", (-1, 1)))


def read(value: Any, specs: tuple[TensorSpec, ...] = IMAGE) -> tuple[dict[str, Any], int]:
    body = value if isinstance(value, bytes) else orjson.dumps(value)
    return tensors_of(read_predict(body), specs, elements=1_000, rows=10)


@pytest.mark.parametrize(
    "value",
    [
        {"instances": [[[1, 2], [3, 4]], [[5, 6], [7, 8]]]},
        {
            "instances": [{"x": [[1, 2], [3, 4]]}, {"x": [[5, 6], [7, 8]]}],
            "signature_name": "serving_default",
        },
        {"inputs": [[[1, 2], [3, 4]], [[5, 6], [7, 8]]]},
        {"inputs": {"x": [[[1, 2], [3, 4]], [[5, 6], [7, 8]]]}},
    ],
)
def test_rows_and_columns_are_the_same(value: Any) -> None:
    inputs, rows = read(value)
    assert rows == 2 and inputs["x"].dtype == np.float32
    assert inputs["x"].tolist() == [[[1, 2], [3, 4]], [[5, 6], [7, 8]]]


def test_several_inputs_texts_and_plain_values() -> None:
    rows = [{"size": 1.5, "note": "a"}, {"size": None, "note": {"b64": "w7w="}}]
    by_row, count = read({"instances": rows}, MIXED)
    assert count == 2 and by_row["note"].tolist() == [["a"], ["ü"]]
    assert by_row["size"][0, 0] == 1.5 and np.isnan(by_row["size"][1, 0])
    by_column, _ = read({"inputs": {"size": [[1.5], [2]], "note": [["a"], [{"b64": "w7w="}]]}}, MIXED)
    assert by_column["note"].tolist() == [["a"], ["ü"]] and by_column["size"].tolist() == [[1.5], [2]]


def test_open_dimensions_are_as_the_data_is_nested() -> None:
    inputs, _ = read({"instances": [[1, 2, 3], [4, 5, 6]]}, (TensorSpec("x", "INT64", (-1, -1)),))
    assert inputs["x"].tolist() == [[1, 2, 3], [4, 5, 6]]


def test_answers() -> None:
    one = {"p": np.array([[0.5], [np.nan]], np.float32)}
    assert orjson.loads(write_predict("instances", one)) == {"predictions": [[0.5], [None]]}
    assert orjson.loads(write_predict("inputs", one)) == {"outputs": [[0.5], [None]]}
    two = one | {"t": np.array([["a"], ["b"]], object), "h": np.array([[1], [2]], np.float16)}
    rows = orjson.loads(write_predict("instances", two))["predictions"]
    assert rows == [{"p": [0.5], "t": ["a"], "h": [1.0]}, {"p": [None], "t": ["b"], "h": [2.0]}]
    assert orjson.loads(write_predict("inputs", two))["outputs"]["t"] == [["a"], ["b"]]
    results = orjson.loads(write_classify(np.array([[0.25, 0.75]]), ("no", "yes")))["results"]
    assert results == [[["no", 0.25], ["yes", 0.75]]]
    assert orjson.loads(write_regress(np.array([[3.0]]))) == {"results": [3.0]}
    assert orjson.loads(write_status(["1"]))["model_version_status"][0]["state"] == "AVAILABLE"
    described = orjson.loads(write_metadata("m", "1", MIXED, IMAGE))
    signature = described["metadata"]["signature_def"]["signature_def"]["serving_default"]
    assert signature["inputs"]["note"]["dtype"] == "DT_STRING"
    assert signature["inputs"]["size"]["tensor_shape"]["dim"][0]["size"] == "-1"


def test_examples_take_the_context() -> None:
    body = orjson.dumps({"context": {"a": 1}, "examples": [{"b": 2}, {"a": 3, "b": 4}]})
    assert read_examples(body, limit=2).rows == [{"a": 1, "b": 2}, {"a": 3, "b": 4}]
    for wrong, word in (
        ({}, "examples"), ({"examples": []}, "examples"), ({"examples": [1]}, "examples[0]"),
        ({"examples": [{}, {}, {}]}, "too many"), ({"examples": [{}], "context": 1}, "context"),
    ):  # fmt: skip
        with pytest.raises(RequestError) as caught:
            read_examples(orjson.dumps(wrong), limit=2)
        assert word in str(caught.value)


BAD: dict[str, tuple[Any, str]] = {
    "no JSON": (b"{", "body"),
    "a list": (b"[]", "body"),
    "nothing": ({}, "instances"),
    "both": ({"instances": [1], "inputs": [1]}, "twice"),
    "a key twice": (b'{"instances": [1], "instances": [2]}', "instances"),
    "unknown field": ({"instance": [1]}, "did you mean 'instances'"),
    "signature": ({"instances": [1], "signature_name": "other"}, "signature_name"),
    "signature no text": ({"instances": [1], "signature_name": 3}, "signature_name"),
    "instances object": ({"instances": {"x": 1}}, "instances"),
    "instances empty": ({"instances": []}, "instances"),
    "inputs text": ({"inputs": "x"}, "inputs"),
    "unknown input": ({"instances": [{"x": [[1, 2], [3, 4]], "y": 1}]}, "'y'"),
    "missing input": ({"instances": [{"z": 1}]}, "'x'"),
    "second row misses": ({"instances": [{"x": [[1, 2], [3, 4]]}, {}]}, "instances[1]"),
    "row of objects and not": ({"instances": [{"x": 1}, 2]}, "instances"),
    "ragged": ({"instances": [[[1, 2], [3]]]}, "instances"),
    "wrong shape": ({"instances": [[1, 2, 3]]}, "instances"),
    "text number": ({"instances": [[["1", 2], [3, 4]]]}, "instances"),
    "too many rows": ({"instances": [[[1, 2], [3, 4]]] * 11}, "at most 10"),
    "object in the middle": ({"instances": [[[{}, 2], [3, 4]]]}, "instances"),
    "deep": (b'{"instances": ' + b"[" * 500 + b"]" * 500 + b"}", "instances"),
    "very deep": (b'{"instances": ' + b"[" * 5_000 + b"]" * 5_000 + b"}", "body"),
    "huge number": (b'{"instances": [[[1e999, 2], [3, 4]]]}', ""),
    "not UTF-8": (b'{"instances": ["\xff"]}', "body"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_wrong_is_refused_by_name(name: str) -> None:
    value, word = BAD[name]
    try:
        inputs, _ = read(value)
    except RequestError as error:
        assert 400 <= error.status < 500
        assert word in str(error)
    else:
        assert name == "huge number" and np.isinf(inputs["x"]).any()


@pytest.mark.parametrize(
    "value",
    [{"b64": "%%%"}, {"b64": 3}, {"b64": "/w=="}, {"b65": "aa"}, {"b64": "aa", "x": 1}, 3, [["a"]]],
)
def test_texts_that_are_none(value: Any) -> None:
    with pytest.raises(RequestError, match="note"):
        read({"inputs": {"size": [1], "note": [value]}}, MIXED)
    with pytest.raises(RequestError):
        read({"inputs": {"size": [1, 2], "note": ["a"]}}, MIXED)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["x", "size", "note", "b64", "instances"]), inner, max_size=3)
    ),
    max_leaves=20,
)


@given(st.sampled_from(["instances", "inputs"]), JSON, st.sampled_from([IMAGE, MIXED]))
@settings(max_examples=150, deadline=None)
def test_no_body_ends_in_anything_but_tensors_or_a_reason(field: str, value: Any, specs: Any) -> None:
    try:
        body = orjson.dumps({field: value})
    except orjson.JSONEncodeError:  # an integer beyond 64 bits
        return
    try:
        inputs, rows = read(body, specs)
    except RequestError as error:
        assert 400 <= error.status < 500
        return
    assert {len(array) for array in inputs.values()} == {rows}
