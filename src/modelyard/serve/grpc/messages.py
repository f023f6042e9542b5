"""The messages of `inference.GRPCInferenceService`, built when used: no generated code, no clash.

Source: `open_inference_grpc.proto` of the Open Inference Protocol, and Triton's `grpc_service.proto` and
`model_config.proto` for the rest, of which there is what we can fill truthfully. Field numbers are the wire
format; an enumeration is a whole number there.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from modelyard.core.require import require

PACKAGE = "inference"
SERVICE = f"{PACKAGE}.GRPCInferenceService"

# name type number; `*` repeated, `?` one of a group, `{}` a map from text. A type in capitals is a message.
_MESSAGES = {
    "Empty": "",
    "ServerLiveResponse": "live bool 1",
    "ReadyResponse": "ready bool 1",
    "ModelRequest": "name string 1, version string 2",
    "ServerMetadataResponse": "name string 1, version string 2, extensions *string 3",
    "TensorMetadata": "name string 1, datatype string 2, shape *int64 3",
    "ModelMetadataResponse": "name string 1, versions *string 2, platform string 3, "
    "inputs *TensorMetadata 4, outputs *TensorMetadata 5",
    "InferParameter": "bool_param ?bool 1, int64_param ?int64 2, string_param ?string 3, "
    "double_param ?double 4, uint64_param ?uint64 5",
    "InferTensorContents": "bool_contents *bool 1, int_contents *int32 2, int64_contents *int64 3, "
    "uint_contents *uint32 4, uint64_contents *uint64 5, fp32_contents *float 6, "
    "fp64_contents *double 7, bytes_contents *bytes 8",
    "InferTensor": "name string 1, datatype string 2, shape *int64 3, parameters {}InferParameter 4, "
    "contents InferTensorContents 5",
    "InferRequestedOutput": "name string 1, parameters {}InferParameter 2",
    "ModelInferRequest": "model_name string 1, model_version string 2, id string 3, "
    "parameters {}InferParameter 4, inputs *InferTensor 5, outputs *InferRequestedOutput 6, "
    "raw_input_contents *bytes 7",
    "ModelInferResponse": "model_name string 1, model_version string 2, id string 3, "
    "parameters {}InferParameter 4, outputs *InferTensor 5, raw_output_contents *bytes 6",
    "ModelStreamInferResponse": "error_message string 1, infer_response ModelInferResponse 2",
    "ModelInput": "name string 1, data_type int32 2, dims *int64 4",
    "ModelOutput": "name string 1, data_type int32 2, dims *int64 3",
    "DynamicBatching": "",
    "ModelConfig": "name string 1, platform string 2, max_batch_size int32 4, input *ModelInput 5, "
    "output *ModelOutput 6, dynamic_batching DynamicBatching 11",
    "ModelConfigResponse": "config ModelConfig 1",
    "StatisticDuration": "count uint64 1, ns uint64 2",
    "InferStatistics": "success StatisticDuration 1, fail StatisticDuration 2, "
    "compute_infer StatisticDuration 5",
    "ModelStatistics": "name string 1, version string 2, inference_count uint64 4, "
    "execution_count uint64 5, inference_stats InferStatistics 6",
    "ModelStatisticsResponse": "model_stats *ModelStatistics 1",
    "RepositoryIndexRequest": "repository_name string 1, ready bool 2",
    "ModelIndex": "name string 1, version string 2, state string 3, reason string 4",
    "RepositoryIndexResponse": "models *ModelIndex 1",
    "RepositoryParameter": "bool_param ?bool 1, int64_param ?int64 2, string_param ?string 3, "
    "bytes_param ?bytes 4",
    "RepositoryModelRequest": "repository_name string 1, model_name string 2, "
    "parameters {}RepositoryParameter 3",
}

METHODS = {
    "ServerLive": ("Empty", "ServerLiveResponse"),
    "ServerReady": ("Empty", "ReadyResponse"),
    "ModelReady": ("ModelRequest", "ReadyResponse"),
    "ServerMetadata": ("Empty", "ServerMetadataResponse"),
    "ModelMetadata": ("ModelRequest", "ModelMetadataResponse"),
    "ModelConfig": ("ModelRequest", "ModelConfigResponse"),
    "ModelStatistics": ("ModelRequest", "ModelStatisticsResponse"),
    "ModelInfer": ("ModelInferRequest", "ModelInferResponse"),
    "RepositoryIndex": ("RepositoryIndexRequest", "RepositoryIndexResponse"),
    "RepositoryModelLoad": ("RepositoryModelRequest", "Empty"),
    "RepositoryModelUnload": ("RepositoryModelRequest", "Empty"),
}
"""Each method's request and response, one of each."""

STREAM = "ModelStreamInfer"
"""The method with many `ModelInferRequest`s, and a `ModelStreamInferResponse` to each."""

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
    file = descriptor.FileDescriptorProto(name="modelyard_serve.proto", package=PACKAGE, syntax="proto3")
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for line in filter(None, fields.split(", ")):
            _add_field(message, line, descriptor.FieldDescriptorProto)
    # A pool of its own: another library may have registered the protocol's names in the common one.
    pool = pools.DescriptorPool()
    pool.Add(file)
    return {
        name: factory.GetMessageClass(pool.FindMessageTypeByName(f"{PACKAGE}.{name}")) for name in _MESSAGES
    }


def _add_field(message: Any, line: str, field: Any) -> None:
    title, kind, number = line.split()
    made = message.field.add(name=title, number=int(number))
    repeated = kind[0] in "*{"
    made.label = field.LABEL_REPEATED if repeated else field.LABEL_OPTIONAL
    if kind[0] == "{":
        entry = message.nested_type.add(name=title.title() + "Entry")
        entry.options.map_entry = True
        _add_field(entry, "key string 1", field)
        _add_field(entry, f"value {kind[2:]} 2", field)
        made.type, made.type_name = field.TYPE_MESSAGE, f".{PACKAGE}.{message.name}.{entry.name}"
        return
    if kind[0] == "?":
        if not message.oneof_decl:
            message.oneof_decl.add(name="parameter_choice")
        made.oneof_index = 0
    kind = kind.lstrip("*?")
    if kind[0].isupper():
        made.type, made.type_name = field.TYPE_MESSAGE, f".{PACKAGE}.{kind}"
    else:
        made.type = getattr(field, f"TYPE_{kind.upper()}")
