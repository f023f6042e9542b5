"""The protocol's gRPC messages, built when used: no generated code, and no clash with anybody's.

Source: `open_inference_grpc.proto` of the Open Inference Protocol. Field numbers are the wire format.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from modelyard.core.require import require

PACKAGE = "inference"
SERVICE = f"{PACKAGE}.GRPCInferenceService"

# name type number, `*` for repeated. A type in capitals is a message of this file.
_MESSAGES = {
    "Empty": "",
    "LiveResponse": "live bool 1",
    "ReadyResponse": "ready bool 1",
    "ModelRequest": "name string 1, version string 2",
    "ServerMetadata": "name string 1, version string 2, extensions *string 3",
    "TensorMetadata": "name string 1, datatype string 2, shape *int64 3",
    "ModelMetadata": "name string 1, versions *string 2, platform string 3, "
    "inputs *TensorMetadata 4, outputs *TensorMetadata 5",
    "Contents": "bool_contents *bool 1, int_contents *int32 2, int64_contents *int64 3, "
    "uint_contents *uint32 4, uint64_contents *uint64 5, fp32_contents *float 6, "
    "fp64_contents *double 7, bytes_contents *bytes 8",
    "Tensor": "name string 1, datatype string 2, shape *int64 3, contents Contents 5",
    "Wanted": "name string 1",
    "InferRequest": "model_name string 1, model_version string 2, id string 3, inputs *Tensor 5, "
    "outputs *Wanted 6, raw_input_contents *bytes 7",
    "InferResponse": "model_name string 1, model_version string 2, id string 3, outputs *Tensor 5, "
    "raw_output_contents *bytes 6",
}

METHODS = {
    "ServerLive": ("Empty", "LiveResponse"),
    "ServerReady": ("Empty", "ReadyResponse"),
    "ModelReady": ("ModelRequest", "ReadyResponse"),
    "ServerMetadata": ("Empty", "ServerMetadata"),
    "ModelMetadata": ("ModelRequest", "ModelMetadata"),
    "ModelInfer": ("InferRequest", "InferResponse"),
}
"""Each method's request and response."""

CONTENTS = {
    "BOOL": "bool_contents", "INT8": "int_contents", "INT16": "int_contents", "INT32": "int_contents",
    "INT64": "int64_contents", "UINT8": "uint_contents", "UINT16": "uint_contents",
    "UINT32": "uint_contents", "UINT64": "uint64_contents", "FP32": "fp32_contents",
    "FP64": "fp64_contents", "BYTES": "bytes_contents",
}  # fmt: skip
"""The field that holds a datatype's elements; FP16 travels as raw bytes only."""


@cache
def messages() -> dict[str, Any]:
    """The message classes by name; raises `MissingExtra` without protobuf."""
    descriptor = require("google.protobuf.descriptor_pb2", extra="grpc")
    pools = require("google.protobuf.descriptor_pool", extra="grpc")
    factory = require("google.protobuf.message_factory", extra="grpc")
    field = descriptor.FieldDescriptorProto
    file = descriptor.FileDescriptorProto(name="modelyard_conform.proto", package=PACKAGE, syntax="proto3")
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for line in filter(None, fields.split(", ")):
            title, kind, number = line.split()
            made = message.field.add(name=title, number=int(number))
            made.label = field.LABEL_REPEATED if kind[0] == "*" else field.LABEL_OPTIONAL
            kind = kind.lstrip("*")
            if kind[0].isupper():
                made.type, made.type_name = field.TYPE_MESSAGE, f".{PACKAGE}.{kind}"
            else:
                made.type = getattr(field, f"TYPE_{kind.upper()}")
    pool = pools.DescriptorPool()
    pool.Add(file)
    return {
        name: factory.GetMessageClass(pool.FindMessageTypeByName(f"{PACKAGE}.{name}")) for name in _MESSAGES
    }
