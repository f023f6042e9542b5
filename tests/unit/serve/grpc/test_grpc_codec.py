"""The gRPC codec against the official client's messages: both directions, and what is refused by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelyard.core.errors import RequestError
from modelyard.core.spec import DATATYPES, numpy_type
from modelyard.serve.grpc.codec import MAX_FIELDS, read_infer, read_message, write_infer
from modelyard.serve.grpc.messages import CONTENTS, METHODS, messages

pytest.importorskip("grpc")


def wire() -> Any:
    from tritonclient.grpc import service_pb2

    return service_pb2


def request(datatype: str = "FP32", *, raw: bool = True) -> Any:
    """A `ModelInferRequest` of the official classes, with one input `x` of two items."""
    made = wire().ModelInferRequest(model_name="m", id="7")
    made.inputs.add(name="x", datatype=datatype, shape=[2, 1])
    values: list[Any] = {"BYTES": ["a", "ü"], "BOOL": [True, False]}.get(datatype, [1, 2])
    if not raw:
        listed = [text.encode() for text in values] if datatype == "BYTES" else values
        getattr(made.inputs[0].contents, CONTENTS[datatype]).extend(listed)
    elif datatype == "BYTES":
        made.raw_input_contents.append(b"\x01\0\0\0a\x02\0\0\0" + "ü".encode())
    else:
        made.raw_input_contents.append(np.array(values, numpy_type(datatype)).tobytes())
    return made


def read(made: Any) -> Any:
    data = made if isinstance(made, bytes) else made.SerializeToString()
    return read_infer(data, elements=1_000, rows=100)


@pytest.mark.parametrize("datatype", DATATYPES)
@pytest.mark.parametrize("raw", [True, False])
def test_every_datatype_raw_and_typed(datatype: str, raw: bool) -> None:
    if datatype == "FP16" and not raw:
        with pytest.raises(KeyError):
            request(datatype, raw=False)
        return
    asked = read(request(datatype, raw=raw))
    want: list[Any] = {"BYTES": ["a", "ü"], "BOOL": [True, False]}.get(datatype, [1, 2])
    assert (asked.model, asked.id, asked.key, asked.rows, asked.raw) == ("m", "7", "7", 2, raw)
    assert asked.inputs["x"].dtype == numpy_type(datatype) and asked.inputs["x"].shape == (2, 1)
    assert asked.inputs["x"].ravel().tolist() == want
    data = write_infer("m", "1", "7", asked.inputs, raw=raw)
    answer = wire().ModelInferResponse.FromString(data)
    assert (answer.model_name, answer.model_version, answer.id) == ("m", "1", "7")
    assert answer.outputs[0].datatype == datatype and list(answer.outputs[0].shape) == [2, 1]
    again = request(datatype)
    del again.raw_input_contents[:]
    again.raw_input_contents.extend(answer.raw_output_contents)
    if not raw:
        again.inputs[0].contents.CopyFrom(answer.outputs[0].contents)
    assert read(again).inputs["x"].ravel().tolist() == want


def test_parameters_and_outputs() -> None:
    made = request()
    made.parameters["key"].string_param = "client"
    made.parameters["timeout"].int64_param = 2_000_000
    made.outputs.add(name="b")
    made.outputs.add(name="a")
    asked = read(made)
    assert (asked.key, asked.timeout, asked.outputs) == ("client", 2.0, ("b", "a"))
    both = {"a": np.ones((1, 1), np.float32), "b": np.zeros((1, 1), np.float16), "c": np.zeros((1, 1))}
    answer = wire().ModelInferResponse.FromString(
        write_infer("m", "1", "", both, wanted=asked.outputs, raw=False)
    )
    # Half floats have no typed contents: then all are raw.
    assert [item.name for item in answer.outputs] == ["b", "a"] and len(answer.raw_output_contents) == 2


def test_the_messages_are_those_of_the_official_client() -> None:
    known = wire().DESCRIPTOR.message_types_by_name
    theirs = {
        "ModelInferRequest": "ModelInferRequest", "ModelInferResponse": "ModelInferResponse",
        "InferParameter": "InferParameter", "InferTensorContents": "InferTensorContents",
        "ServerMetadataResponse": "ServerMetadataResponse", "ModelMetadataResponse": "ModelMetadataResponse",
        "RepositoryIndexResponse": "RepositoryIndexResponse",
        "RepositoryModelRequest": "RepositoryModelLoadRequest",
        "RepositoryParameter": "ModelRepositoryParameter",
    }  # fmt: skip
    for ours, name in theirs.items():
        fields = [(field.name, field.number, field.type) for field in messages()[ours].DESCRIPTOR.fields]
        assert fields == [(field.name, field.number, field.type) for field in known[name].fields], ours
    services = wire().DESCRIPTOR.services_by_name["GRPCInferenceService"].methods_by_name
    assert set(METHODS) <= set(services)


def change(edit: Callable[[Any], Any], *, raw: bool = True, datatype: str = "FP32") -> Callable[[], Any]:
    def make() -> Any:
        made = request(datatype, raw=raw)
        edit(made)
        return made

    return make


def _set(**fields: Any) -> Callable[[Any], None]:
    def edit(made: Any) -> None:
        for name, value in fields.items():
            if name == "shape":
                del made.inputs[0].shape[:]
                made.inputs[0].shape.extend(value)
            else:
                setattr(made.inputs[0], name, value)

    return edit


def _raw(data: bytes) -> Callable[[Any], None]:
    def edit(made: Any) -> None:
        made.raw_input_contents[0] = data

    return edit


def _contents(made: Any) -> None:
    made.inputs[0].contents.fp32_contents.append(1)


def _bad_text(made: Any) -> None:
    made.inputs[0].contents.bytes_contents[0] = b"\xff"


def _twice() -> Any:
    made = request()
    made.inputs.append(made.inputs[0])
    made.raw_input_contents.append(made.raw_input_contents[0])
    return made


def _output(name: str) -> Any:
    return wire().ModelInferRequest.InferRequestedOutputTensor(name=name)


BAD: dict[str, tuple[Callable[[], Any], str]] = {
    "no bytes of a message": (lambda: b"\xff\xff", "message"),
    "cut": (lambda: request().SerializeToString()[:-1], "message"),
    "text not UTF-8": (lambda: b"\x0a\x01\xff", "UTF-8"),
    "empty": (lambda: b"", "model_name"),
    "no inputs": (change(lambda made: made.inputs.pop()), "inputs"),
    "no name": (change(_set(name="")), "inputs[0].name"),
    "twice": (_twice, "twice"),
    "datatype": (change(_set(datatype="FP31")), "did you mean"),
    "no datatype": (change(_set(datatype="")), "datatype"),
    "no shape": (change(_set(shape=[])), "shape"),
    "negative": (change(_set(shape=[-2, -1])), "shape"),
    "huge": (change(_set(shape=[2**40, 2**40])), "large"),
    "no items": (change(_set(shape=[0, 1])), "items"),
    "too many items": (change(_set(shape=[101, 1])), "items"),
    "too few raw": (change(lambda made: made.inputs.add(name="y", datatype="FP32", shape=[2, 1])),
                    "raw_input_contents"),
    "too many raw": (change(lambda made: made.raw_input_contents.append(b"")), "raw_input_contents"),
    "short": (change(_raw(bytes(7))), "raw_input_contents[0]"),
    "long": (change(_raw(bytes(9))), "raw_input_contents[0]"),
    "texts cut": (change(_raw(b"\x01\0\0\0a\x02"), datatype="BYTES"), "cut short"),
    "text's length": (change(_raw(b"\xff\xff\xff\xffa" + bytes(9)), datatype="BYTES"), "longer"),
    "texts not UTF-8": (change(_raw(b"\x01\0\0\0\xff\0\0\0\0"), datatype="BYTES"), "UTF-8"),
    "both": (change(_contents), "twice"),
    "typed, short": (change(lambda made: made.inputs[0].contents.fp32_contents.pop(), raw=False), "fill"),
    "typed, other field": (change(_set(datatype="INT64"), raw=False), "fp32_contents"),
    "typed, nothing": (change(lambda made: made.inputs[0].ClearField("contents"), raw=False), "fill"),
    "typed, out of range": (change(_set(datatype="INT8"), raw=False, datatype="INT32"), ""),
    "typed half": (change(_set(datatype="FP16"), raw=False), "raw_input_contents"),
    "typed text not UTF-8": (change(_bad_text, raw=False, datatype="BYTES"), "UTF-8"),
    "id": (change(lambda made: setattr(made, "id", "x" * 300)), "id"),
    "key": (change(lambda made: setattr(made.parameters["key"], "int64_param", 1)), "parameters.key"),
    "timeout": (change(lambda made: setattr(made.parameters["timeout"], "int64_param", -1)), "timeout"),
    "timeout of text": (change(lambda made: setattr(made.parameters["timeout"], "string_param", "1")),
                        "parameters.timeout"),
    "output without a name": (change(lambda made: made.outputs.add()), "outputs[0].name"),
    "output twice": (change(lambda made: made.outputs.extend([_output("a"), _output("a")])), "twice"),
    "very many inputs": (lambda: b"\x0a\x01m" + b"\x2a\x00" * (MAX_FIELDS + 1), "too many parts"),
    "very many raw": (lambda: b"\x0a\x01m" + b"\x3a\x00" * (MAX_FIELDS + 1), "too many parts"),
    "a large one, cut": (lambda: b"\x3a\xff\xff\x7f" + bytes(20_000), "field 7"),
    "a large one of groups": (lambda: b"\x0b" * 20_000, "wire type"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_what_is_wrong_is_refused_by_name(name: str) -> None:
    make, word = BAD[name]
    made = make()
    if name == "typed, out of range":
        made.inputs[0].contents.int_contents[1] = 300
        word = "data[1]"
    with pytest.raises(RequestError) as caught:
        read(made)
    assert 400 <= caught.value.status < 500
    assert word in str(caught.value)


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_a_damaged_message_ends_in_tensors_or_a_reason(data: st.DataObject) -> None:
    raw = data.draw(st.booleans())
    whole = bytearray(
        request(data.draw(st.sampled_from(["FP32", "BYTES", "INT8"])), raw=raw).SerializeToString()
    )
    for _ in range(data.draw(st.integers(0, 5))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    body = bytes(whole[: data.draw(st.integers(0, len(whole)))]) + data.draw(st.binary(max_size=8))
    try:
        asked = read(body)
    except RequestError as error:
        assert 400 <= error.status < 500
        return
    assert {len(values) for values in asked.inputs.values()} == {asked.rows}


@given(st.binary(max_size=40), st.sampled_from([asked for asked, _ in METHODS.values()]))
@settings(max_examples=100, deadline=None)
def test_any_bytes_are_a_message_or_refused(body: bytes, kind: str) -> None:
    try:
        read_message(kind, body)
    except RequestError as error:
        assert error.status == 400
