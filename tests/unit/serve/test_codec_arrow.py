"""Arrow streams as rows: what is read, what is written, and hostile streams."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelyard.core.errors import RequestError
from modelyard.data.contract import Column, Contract
from modelyard.data.physical import tensor_column
from modelyard.serve.codec.arrow import read_table, tensors_of, write_table

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
    "i", (Column("x", "tensor", shape=(2, 2), datatype="FP32"), Column("y", "number", role="label"))
)
GOOD = pa.table({"size": [1.5, None], "old": [True, False], "note": ["a", "ü"]})


def stream(table: Any, **options: Any) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_table(table, max_chunksize=1)
    return bytes(sink.getvalue().to_pybytes())


def read(body: bytes, contract: Contract = CONTRACT, room: int = 10_000) -> dict[str, Any]:
    return tensors_of(read_table(body, rows=10), contract, elements=100, room=room)


def column(name: str, values: Any) -> Any:
    return GOOD.set_column(GOOD.column_names.index(name), name, values)


@pytest.mark.parametrize(
    "table",
    [
        GOOD,
        column("note", pa.array(["a", "ü"]).dictionary_encode()),
        column("note", pa.array(["a", "ü"], pa.large_string())),
        column("note", pa.array(["a", "ü"], pa.string_view())),
        column("note", pa.array([b"a", "ü".encode()])),
        column("old", pa.array([1, 0], pa.int8())),
        column("size", pa.array([1.5, None], pa.float16())),
        GOOD.select(["note", "old", "size"]).append_column("y", pa.nulls(2)),
    ],
)
def test_columns_of_any_type_that_fits(table: Any) -> None:
    inputs = read(stream(table))
    assert inputs["size"][0, 0] == 1.5 and np.isnan(inputs["size"][1, 0])
    assert inputs["old"].tolist() == [[1.0], [0.0]]
    assert inputs["note"].tolist() == [["a"], ["ü"]]


def test_tensors_and_what_may_be_left_out() -> None:
    values = np.arange(8, dtype=np.float32).reshape(2, 2, 2)
    for given_as in (tensor_column(values), pa.array(values.tolist(), pa.list_(pa.list_(pa.float32())))):
        np.testing.assert_array_equal(read(stream(pa.table({"x": given_as})), IMAGE)["x"], values)
    assert np.isnan(read(stream(GOOD.drop_columns(["size"])))["size"]).all()


def test_the_answer_is_a_stream_that_says_who_answered() -> None:
    outputs = {"probabilities": np.array([[0.25, 0.75], [0.5, 0.5]], np.float32)}
    body = write_table("e", "sha256:0", "3", "r", outputs, labels=("a", "b"))
    table = pa.ipc.open_stream(body).read_all()
    assert table.to_pylist() == [
        {"id": "r.0", "label": "b", "confidence": 0.75, "probabilities": [0.25, 0.75]},
        {"id": "r.1", "label": "a", "confidence": 0.5, "probabilities": [0.5, 0.5]},
    ]
    assert table.schema.metadata[b"version"] == b"3" and table.schema.metadata[b"endpoint"] == b"e"
    value = write_table("e", "d", "1", "r", {"prediction": np.array([[3.0]], np.float32)}, labels=())
    assert pa.ipc.open_stream(value).read_all().to_pylist() == [{"id": "r", "prediction": 3.0}]


LONG = pa.DictionaryArray.from_arrays(pa.array([0, 0], pa.int32()), pa.array(["x" * 6_000]))
BAD: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "Arrow"),
    "text": (b"hello, this is no stream", "Arrow"),
    "a file, not a stream": (b"ARROW1\x00\x00" + stream(GOOD), "Arrow"),
    "zeros": (bytes(64), ""),
    "compressed": (stream(GOOD, compression="zstd"), "compressed"),
    "compressed dictionary": (stream(column("note", LONG), compression="lz4"),
                              "compressed"),
    "no rows": (stream(GOOD.slice(0, 0)), "no row"),
    "too many rows": (stream(pa.concat_tables([GOOD] * 6)), "at most 10"),
    "unknown column": (stream(GOOD.append_column("sice", GOOD["size"])), "sice"),
    "twice": (stream(GOOD.append_column("size", GOOD["size"])), "twice"),
    "missing column": (stream(GOOD.drop_columns(["old"])), "'old'"),
    "missing value": (stream(column("old", pa.array([None, True]))), "'old'"),
    "missing text": (stream(column("note", pa.array(["", "a"]))), "'note'"),
    "missing truth": (stream(column("old", pa.array([float("nan"), 1.0]))), "'old'"),
    "wrong type": (stream(column("size", pa.array(["1", "2"]))), "'size'"),
    "infinite": (stream(column("size", pa.array([1e300, 1.0]))), "'size'"),
    "bytes": (stream(column("note", pa.array([b"\xff", b"a"]))), "'note'"),
    "struct": (stream(column("note", pa.array([{"a": 1}, {"a": 2}]))), "type"),
    "map": (stream(column("note", pa.array([[("a", 1)], []], pa.map_(pa.string(), pa.int8())))), "type"),
    "run ends": (stream(column("size", pa.RunEndEncodedArray.from_arrays([2], [1.0]))), "type"),
    "a dictionary that stands for much": (stream(column("note", LONG)), "too long"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_what_is_wrong_is_refused_by_name(name: str) -> None:
    body, word = BAD[name]
    with pytest.raises(RequestError) as caught:
        read(body)
    assert 400 <= caught.value.status < 500
    assert word in str(caught.value)


@pytest.mark.parametrize(
    "values",
    [
        pa.array([[1.0, 2.0]], pa.list_(pa.float32())),
        pa.array([[[1.0], [2.0, 3.0]]]),
        pa.array([[["a", "b"], ["c", "d"]]]),
        pa.array([1.0]),
        pa.array([None], pa.list_(pa.float32())),
    ],
)
def test_tensors_that_do_not_fit(values: Any) -> None:
    with pytest.raises(RequestError, match=r"x|type"):
        read(stream(pa.table({"x": values})), IMAGE)


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_a_damaged_stream_ends_in_tensors_or_a_reason(data: st.DataObject) -> None:
    whole = bytearray(stream(column("note", pa.array(["a", "ü"]).dictionary_encode())))
    for _ in range(data.draw(st.integers(1, 6))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    body = bytes(whole[: data.draw(st.integers(0, len(whole)))] if data.draw(st.booleans()) else whole)
    try:
        inputs = read(body)
    except RequestError as error:
        assert 400 <= error.status < 500
        return
    assert len({len(values) for values in inputs.values()}) == 1
