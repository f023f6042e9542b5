"""The reader and writer of ordinary messages, held against the careful ones and the official classes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelyard.core.errors import RequestError
from modelyard.core.spec import DATATYPES, numpy_type
from modelyard.serve.grpc.codec import read_infer
from modelyard.serve.grpc.plain import PlainReader, PlainWriter, varint

pytest.importorskip("grpc")

LIMITS = {"elements": 1_000, "rows": 100}
NUMBERS = [name for name in DATATYPES if name not in ("BYTES", "BOOL")]


def wire() -> Any:
    from tritonclient.grpc import service_pb2

    return service_pb2


def request(*, datatype: str = "FP32", shape: tuple[int, ...] = (2, 3), **fields: Any) -> Any:
    made = wire().ModelInferRequest(model_name="m", **fields)
    made.inputs.add(name="x", datatype=datatype, shape=shape)
    made.raw_input_contents.append(np.arange(np.prod(shape)).astype(numpy_type(datatype)).tobytes())
    return made


def both(data: bytes) -> tuple[Any, Any]:
    """What the plain reader says twice, the second time knowing the description, and the careful one."""
    reader = PlainReader(**LIMITS)
    first, second = reader.read(data), reader.read(data)
    assert (first is None) == (second is None)
    try:
        return second, read_infer(data, **LIMITS)
    except RequestError as error:
        return second, error


def same(plain: Any, careful: Any) -> None:
    for name in ("model", "version", "id", "key", "rows", "outputs", "raw", "timeout"):
        assert getattr(plain, name) == getattr(careful, name), name
    assert list(plain.inputs) == list(careful.inputs)
    for name, values in plain.inputs.items():
        assert values.dtype == careful.inputs[name].dtype and values.flags.aligned
        assert values.shape == careful.inputs[name].shape
        assert values.tobytes() == careful.inputs[name].tobytes()


@pytest.mark.parametrize("datatype", NUMBERS)
@pytest.mark.parametrize("identity", ["", "a", "abcdef-ü", "x" * 200])
def test_numbers_are_read_alike(datatype: str, identity: str) -> None:
    plain, careful = both(request(datatype=datatype, id=identity, model_version="2").SerializeToString())
    assert plain is not None
    same(plain, careful)


def test_long_lengths_and_several_inputs() -> None:
    made = request(shape=(10, 90))
    made.inputs.add(name="y", datatype="INT64", shape=[10])
    made.raw_input_contents.append(bytes(80))
    plain, careful = both(made.SerializeToString())
    assert plain is not None and len(plain.inputs) == 2
    same(plain, careful)


def test_what_is_not_ordinary_is_left_to_the_careful_reader() -> None:
    shapes = ((0, 3), (101, 1), (2, 600))
    unusual = [request(shape=shape) for shape in shapes]
    unusual += [request(datatype="BOOL"), request(id="x" * 257), wire().ModelInferRequest(), request()]
    unusual[-1].parameters["key"].string_param = "k"
    for edit in ("outputs", "inputs", "raw_input_contents"):
        made = request()
        if edit == "raw_input_contents":
            made.raw_input_contents.append(b"")
        else:
            getattr(made, edit).add(name="a")
        unusual.append(made)
    typed = request()
    typed.inputs[0].contents.fp32_contents.append(1)
    texts = request(datatype="FP32")
    texts.inputs[0].datatype = "BYTES"
    for made in (*unusual, typed, texts):
        assert PlainReader(**LIMITS).read(made.SerializeToString()) is None


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_damaged_messages_are_read_alike_or_left(data: st.DataObject) -> None:
    whole = bytearray(request(id="7", model_version="1").SerializeToString())
    for _ in range(data.draw(st.integers(0, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    body = bytes(whole[: data.draw(st.integers(0, len(whole)))]) + data.draw(st.binary(max_size=6))
    plain, careful = both(body)
    if plain is not None:
        assert not isinstance(careful, RequestError), careful
        same(plain, careful)


def test_the_known_descriptions_are_bounded() -> None:
    reader = PlainReader(elements=1 << 20, rows=1 << 16)
    for rows in range(1, 3_000):
        assert reader.read(request(shape=(rows, 1)).SerializeToString()) is not None
    assert len(reader._known) <= 1_024


@pytest.mark.parametrize("datatype", DATATYPES)
def test_the_official_classes_read_what_is_written(datatype: str) -> None:
    values = (
        np.array(["a", "ü"], object) if datatype == "BYTES" else np.arange(2).astype(numpy_type(datatype))
    )
    writer = PlainWriter("m", "3")
    for identity in ("", "i" * 200):
        answer = wire().ModelInferResponse.FromString(writer.write(identity, {"y": values.reshape(2, 1)}))
        assert (answer.model_name, answer.model_version, answer.id) == ("m", "3", identity)
        assert [(item.name, item.datatype, list(item.shape)) for item in answer.outputs] == [
            ("y", datatype, [2, 1])
        ]
        raw = b"\x01\0\0\0a\x02\0\0\0" + "ü".encode() if datatype == "BYTES" else values.tobytes()
        assert list(answer.raw_output_contents) == [raw]


@given(st.integers(0, 1 << 40))
def test_numbers_are_written_seven_bits_a_byte(number: int) -> None:
    text = varint(number)
    assert sum((byte & 127) << (7 * place) for place, byte in enumerate(text)) == number
    assert all(byte > 127 for byte in text[:-1]) and text[-1] < 128
