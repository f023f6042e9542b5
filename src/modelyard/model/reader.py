"""The only way in for a graph from outside: parsed from bytes, audited against bounds, never from a path."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from modelyard.core.errors import ModelError
from modelyard.model.audit import audit
from modelyard.model.clean import canonical_bytes, clean
from modelyard.model.graph_signature import graph_signature
from modelyard.model.limits import DEFAULT_LIMITS, Limits
from modelyard.model.model import Model, Task
from modelyard.model.tensors import check_tensor, constants, count_elements, inline_blobs
from modelyard.model.wire import count_messages, onnx_table

if TYPE_CHECKING:
    from modelyard.store.objects import ObjectStore

__all__ = ["Limits", "read_model"]


def read_model(
    onnx: bytes,
    *,
    task: Task,
    labels: tuple[str, ...] = (),
    limits: Limits = DEFAULT_LIMITS,
    blobs: ObjectStore | None = None,
) -> Model:
    """A model from ONNX bytes; raises `ModelError` for whatever is not provably harmless.

    Size, message count, structure, operators, names, constants and shapes are checked in this order, each
    before the work that it bounds; onnx's own checker and shape inference come last. Data outside the file
    is refused unless it is a `sha256:` blob of `blobs`, which is verified and put inside. Documentation and
    metadata are dropped. Reading the result's bytes again gives the same bytes.
    """
    if len(onnx) > limits.bytes:
        raise ModelError("the model file is too large", value=len(onnx), rule=f"at most {limits.bytes} bytes")
    if not onnx:
        raise ModelError("the model file is empty", value=0, rule="an ONNX ModelProto")
    _check_labels(labels)
    count_messages(onnx, onnx_table(), limits.messages)
    proto = _parse(onnx)
    _check_head(proto)
    audit(proto, limits)
    budget = limits.bytes - len(onnx)
    for tensor in constants(proto):
        budget -= inline_blobs(tensor, blobs, budget)
        check_tensor(tensor, limits)
    _check_sparse(proto, limits)
    clean(proto)
    data = canonical_bytes(proto)
    inferred = _infer(data)
    _check_shapes(inferred, limits)
    signature = graph_signature(inferred.graph, task, labels, limits)
    producer = f"{proto.producer_name} {proto.producer_version}".strip()
    return Model(data, signature, task, labels, producer)


def _check_labels(labels: tuple[str, ...]) -> None:
    if len(set(labels)) != len(labels):
        raise ModelError("two labels have the same name", value=list(labels), rule="each label once")


def _parse(data: bytes) -> Any:
    import onnx

    try:
        return onnx.ModelProto.FromString(data)
    except Exception as error:  # protobuf's DecodeError; its module ships no types.
        raise ModelError(
            "the bytes are not an ONNX file", value=str(error), fix="check that the file was copied whole"
        ) from error


def _check_head(proto: Any) -> None:
    import onnx

    if not proto.HasField("graph"):
        raise ModelError("the file holds no graph", rule="one ModelProto with a graph")
    if not 3 <= proto.ir_version <= onnx.IR_VERSION:
        raise ModelError(
            "the file's format version is not known",
            value=proto.ir_version,
            rule=f"3 to {onnx.IR_VERSION}",
            fix="export it with an older onnx",
        )
    if proto.training_info:
        raise ModelError("the file holds a training graph", fix="export the graph for inference only")
    if not proto.graph.name:
        proto.graph.name = "graph"


def _check_sparse(proto: Any, limits: Limits) -> None:
    stack = [proto.graph]
    nodes = [node for function in proto.functions for node in function.node]
    while stack or nodes:
        if stack:
            graph = stack.pop()
            nodes.extend(graph.node)
            sparse = list(graph.sparse_initializer)
        else:
            node = nodes.pop()
            stack.extend(item.g for item in node.attribute if item.HasField("g"))
            stack.extend(graph for item in node.attribute for graph in item.graphs)
            sparse = [item.sparse_tensor for item in node.attribute if item.HasField("sparse_tensor")]
            sparse += [tensor for item in node.attribute for tensor in item.sparse_tensors]
        for tensor in sparse:
            count_elements(tensor.dims, limits, f"the sparse tensor {tensor.values.name!r}")


def _infer(data: bytes) -> Any:
    """onnx's own verdict on the graph; what it raises becomes a `ModelError` of one line."""
    import onnx

    try:
        onnx.checker.check_model(data)
        proto = onnx.ModelProto.FromString(data)
        return onnx.shape_inference.infer_shapes(proto, check_type=True, strict_mode=True, data_prop=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ModelError("onnx refuses the graph", value=_first_line(error)) from error
    except Exception as error:  # onnx's C++ side raises what pybind11 makes of any std::exception.
        raise ModelError("onnx cannot check the graph", value=_first_line(error)) from error


def _check_shapes(model: Any, limits: Limits) -> None:
    """Refuses a graph in which any tensor whose shape is known would be too large to make."""
    graphs = [model.graph]
    while graphs:
        graph = graphs.pop()
        for info in (*graph.input, *graph.value_info, *graph.output):
            if info.type.WhichOneof("value") == "tensor_type" and info.type.tensor_type.HasField("shape"):
                sizes = [
                    dim.dim_value for dim in info.type.tensor_type.shape.dim if dim.HasField("dim_value")
                ]
                count_elements(sizes, limits, f"the tensor {info.name!r}")
        for node in graph.node:
            graphs.extend(item.g for item in node.attribute if item.HasField("g"))
            graphs.extend(inner for item in node.attribute for inner in item.graphs)


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:300] if lines else type(error).__name__
