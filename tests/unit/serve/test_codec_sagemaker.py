"""SageMaker's bodies by content type, and what is refused by name."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelyard.core.errors import RequestError
from modelyard.data.contract import Column, Contract
from modelyard.serve.codec.sagemaker import write_csv
from modelyard.serve.options import Limits
from modelyard.serve.sagemaker_dialect import SageMaker, speak_invocation

CONTRACT = Contract(
    "c",
    (
        Column("size", "number", missing_max=0.5),
        Column("old", "boolean"),
        Column("note", "text"),
        Column("y", "number", role="label"),
    ),
)
IMAGE = Contract(
    "i",
    (
        Column("x", "tensor", shape=(2, 2), datatype="FP32"),
        Column("y", "category", role="label", categories=("a", "b")),
    ),
)
LIMITS = Limits(rows=10, elements=1_000, body=1 << 16)


def served(contract: Contract = CONTRACT, labels: tuple[str, ...] = ()) -> Any:
    return SimpleNamespace(contract=contract, labels=labels, digest="sha256:0", version="1")


def speak(body: bytes, kind: str | None = None, **headers: str) -> Any:
    known = {key.replace("_", "-"): value for key, value in headers.items()}
    if kind is not None:
        known["content-type"] = kind
    return speak_invocation(body, known.get, LIMITS)


def tensors(body: bytes, kind: str | None = None, contract: Contract = CONTRACT) -> dict[str, Any]:
    inputs, rows = speak(body, kind).tensors(served(contract))
    assert {len(values) for values in inputs.values()} == {rows}
    return {name: values.tolist() for name, values in inputs.items()}


WANT = {"size": [[1.5], [2.0]], "old": [[1.0], [0.0]], "note": [["a, b"], ["ü"]]}
SAME: dict[str, tuple[str | None, bytes]] = {
    "csv": ("text/csv", '1.5,1,"a, b"\n2,0,ü\n'.encode()),
    "csv of Windows": ("text/csv; charset=UTF-8", '\ufeff1.5,true,"a, b"\r\n2,False,ü\r\n\r\n'.encode()),
    "csv with names": ("text/csv", 'note,size,old\n"a, b",1.5,1\nü,2,0'.encode()),
    "csv said to have names": ("text/csv;header=present", 'note,size,old\n"a, b",1.5,1\nü,2,0'.encode()),
    "rows": ("application/json", orjson.dumps({"rows": [{"size": 1.5, "old": True, "note": "a, b"},
                                                        {"size": 2, "old": False, "note": "ü"}]})),
    "list": (None, orjson.dumps([{"size": 1.5, "old": True, "note": "a, b"}, [2, False, "ü"]])),
    "instances": (None, orjson.dumps({"instances": [{"features": [1.5, True, "a, b"]},
                                                    {"size": 2, "old": 0, "note": "ü"}]})),
    "lines": ("application/jsonlines", b'{"features": [1.5, 1, "a, b"]}\n\n'
              + orjson.dumps({"size": 2, "old": False, "note": "ü"})),
    "tensors": ("application/json", orjson.dumps({"inputs": [
        {"name": "size", "datatype": "FP32", "shape": [2, 1], "data": [1.5, 2]},
        {"name": "old", "datatype": "FP32", "shape": [2, 1], "data": [1, 0]},
        {"name": "note", "datatype": "BYTES", "shape": [2, 1], "data": ["a, b", "ü"]}]})),
}  # fmt: skip


@pytest.mark.parametrize("name", SAME)
def test_the_same_rows_in_every_format(name: str) -> None:
    kind, body = SAME[name]
    assert tensors(body, kind) == WANT


def test_a_tensor_takes_a_cell_for_each_element() -> None:
    assert tensors(b"1,2,3,4\n5,6,7,8", "text/csv", IMAGE)["x"] == [[[1, 2], [3, 4]], [[5, 6], [7, 8]]]
    assert tensors(b"[[1,2,3,4]]", None, IMAGE)["x"] == [[[1, 2], [3, 4]]]
    assert tensors(b'[{"x": [[1,2],[3,4]]}]', None, IMAGE)["x"] == [[[1, 2], [3, 4]]]


def test_an_empty_cell_is_missing() -> None:
    assert np.isnan(tensors(b",1,a", "text/csv")["size"][0][0])
    with pytest.raises(RequestError, match="old"):
        tensors(b"1,,a", "text/csv")


TRITON = "application/vnd.sagemaker-triton.binary+json;json-header-size="

BAD: dict[str, tuple[str | None, bytes, str]] = {
    "no JSON": (None, b"{", "body"),
    "empty": (None, b"", "body"),
    "number": (None, b"3", "body"),
    "nothing": (None, b"{}", "rows, instances, inputs"),
    "twice": (None, b'{"rows": [{}], "instances": [{}]}', "twice"),
    "key twice": (None, b'[{"size": 1, "size": 2, "old": 1, "note": "a"}]', "size"),
    "row of text": (None, b'["a"]', "body[0]"),
    "empty list": (None, b"[]", "body"),
    "open list": (None, b'[{"size": 1}', "body"),
    "closed and opened": (None, b'[1], "rows": [2]', "body"),
    "too many": (None, orjson.dumps([[1, 1, "a"]] * 11), "at most 10"),
    "too many lines": ("text/csv", b"1,1,a\n" * 11, "at most 10"),
    "too many objects": ("application/jsonlines", b"{}\n" * 11, "at most 10"),
    "line is cut": ("application/jsonlines", b'{"size": 1, "old": 1, "note": "a"}\n{"si', "line 2"),
    "cells": ("text/csv", b"1,1,a\n1,1", "rows[1]"),
    "more cells": (None, b'[[1, 1, "a", 4]]', "rows[0]"),
    "no number": ("text/csv", b"abc,1,a", "size"),
    "python number": ("text/csv", b"1_0,1,a", "size"),
    "infinite": ("text/csv", b"inf,1,a", "size"),
    "quoted number": (None, b'[["1", 1, "a"]]', "size"),
    "open quote": ("text/csv", b'1,1,"a', "CSV"),
    "stray quote": ("text/csv", b'1,1,"a"b', "CSV"),
    "not UTF-8": ("text/csv", b"1,1,\xff", "UTF-8"),
    "only names": ("text/csv", b"size,old,note", "no row"),
    "names twice": ("text/csv", b"size,old,note,note\n1,1,a,b", "twice"),
    "unknown name": ("text/csv; header=present", b"size,old,text\n1,1,a", "text"),
    "header option": ("text/csv; header=maybe", b"1,1,a", "header"),
    "option twice": ("text/csv; header=present; header=absent", b"1,1,a", "twice"),
    "charset": ("text/csv; charset=utf-16", b"1,1,a", "utf-8"),
    "kind": ("application/xml", b"<a/>", "Content-Type"),
    "pickle": ("application/python-pickle", b"\x80\x04", "Content-Type"),
    "header length": (TRITON + "x", b"{}", "json-header-size"),
    "long header length": (TRITON + "9", b"{}", "longer"),
    "arrow": ("application/vnd.apache.arrow.stream", b"ARROW", "Arrow"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_what_is_wrong_is_refused_by_name(name: str) -> None:
    kind, body, word = BAD[name]
    with pytest.raises(RequestError) as caught:
        tensors(body, kind)
    assert 400 <= caught.value.status < 500
    assert word in str(caught.value)


def test_headers_that_are_wrong() -> None:
    row = b'[[1, 1, "a"]]'
    with pytest.raises(RequestError, match="Accept"):
        speak(row, accept="image/png")
    with pytest.raises(RequestError, match="inference id"):
        speak(row, x_amzn_sagemaker_inference_id="x" * 300)
    assert speak(row, x_amzn_sagemaker_inference_id="i1").id == "i1"
    assert speak(b'{"rows": [{}], "id": "i2", "key": "k"}', x_amzn_sagemaker_inference_id="i1").key == "k"


def test_answers_are_as_asked() -> None:
    outputs = {"prediction": np.array([[3.0], [np.nan]], np.float32)}
    spoken = speak(b"1,1,a", "text/csv")
    assert spoken.write("e", served(), "id", outputs).body == b"3.0\n\n"
    as_json = speak(b"1,1,a", "text/csv", accept="application/json;q=1, */*")
    assert orjson.loads(as_json.write("e", served(), "id", outputs).body)["predictions"][0]["prediction"] == 3
    lines = speak(b'{"size": 1}', "application/jsonlines").write("e", served(), "id", outputs)
    assert [orjson.loads(line)["id"] for line in lines.body.splitlines()] == ["id.0", "id.1"]
    labelled = write_csv({"probabilities": np.array([[0.25, 0.75]])}, labels=("a", 'b "x", y'))
    assert labelled == b'"b ""x"", y",0.75\n'


def test_which_endpoint() -> None:
    dialect = SageMaker()
    two: Any = {"a": None, "b": None}
    none = {}.get
    assert dialect.route("POST", ["", "elsewhere"], none, two) is None
    ask: Any = dialect.route("POST", ["", "invocations"], none, {"a": two["a"]})
    assert ask.endpoint == "a"
    target = {"x-amzn-sagemaker-target-model": "/b.tar.gz"}.get
    chosen: Any = dialect.route("POST", ["", "invocations"], target, two)
    assert chosen.endpoint == "b"
    for method, path, endpoints, status in (
        ("POST", "invocations", two, 400), ("POST", "invocations", {}, 503), ("GET", "ping", {}, 503),
        ("GET", "invocations", two, 405), ("POST", "ping", two, 405),
    ):  # fmt: skip
        with pytest.raises(RequestError) as caught:
            dialect.route(method, ["", path], none, endpoints)
        assert caught.value.status == status


KINDS = st.sampled_from(
    [None, "text/csv", "application/json", "application/jsonlines", "text/csv;header=present"]
)
SNIPPETS = st.lists(
    st.sampled_from([b"1", b"a", b",", b"\n", b'"', b"size", b"old", b"note", b"{", b"}", b"[", b"]", b":",
                     b'"size"', b'"features"', b"null", b"\xff", b"\x00", b"1e999", b"\r", b'"rows"']),
    max_size=25,
).map(b"".join)  # fmt: skip


@given(KINDS, st.binary(max_size=60) | SNIPPETS, st.sampled_from([CONTRACT, IMAGE]))
@settings(max_examples=150, deadline=None)
def test_no_body_ends_in_anything_but_tensors_or_a_reason(
    kind: str | None, body: bytes, contract: Contract
) -> None:
    try:
        tensors(body, kind, contract)
    except RequestError as error:
        assert 400 <= error.status < 500
