"""A model file from anywhere, audited as strictly as our own, whatever its inputs and outputs are called."""

from __future__ import annotations

from typing import Any

from modelyard.core.errors import ModelError
from modelyard.core.spec import DYNAMIC, Signature, TensorSpec, datatype_of
from modelyard.model.audit import audit
from modelyard.model.clean import canonical_bytes, clean
from modelyard.model.limits import DEFAULT_LIMITS, Limits
from modelyard.model.model import Model
from modelyard.model.reader import read_model
from modelyard.model.tensors import check_tensor, constants, inline_blobs
from modelyard.model.wire import count_messages, onnx_table


def read_any(onnx: bytes, limits: Limits = DEFAULT_LIMITS) -> tuple[Model, tuple[str, ...]]:
    """The model for looking into, and what keeps it from being served (nothing, for one of ours).

    The bounds and the audit are those of `read_model`; only the rule on names, batch and answers is let go.
    Raises `ModelError` for everything else that `read_model` refuses.
    """
    try:
        return read_model(onnx, task="classification", limits=limits), ()
    except ModelError:
        pass
    try:
        return read_model(onnx, task="regression", limits=limits), ()
    except ModelError as error:
        reason = str(error)
    if len(onnx) > limits.bytes:
        raise ModelError("the model file is too large", value=len(onnx), rule=f"at most {limits.bytes} bytes")
    count_messages(onnx, onnx_table(), limits.messages)
    proto = _parse(onnx)
    audit(proto, limits)
    budget = limits.bytes - len(onnx)
    for tensor in constants(proto):
        budget -= inline_blobs(tensor, None, budget)
        check_tensor(tensor, limits)
    clean(proto)
    data = canonical_bytes(proto)
    _check(data)
    signature = Signature(_specs(proto.graph.input), _specs(proto.graph.output))
    return Model(data, signature, "regression"), (f"not as the loop serves it: {reason}",)


def _parse(onnx: bytes) -> Any:
    import onnx as library

    try:
        proto = library.ModelProto.FromString(onnx)
    except Exception as error:  # protobuf's DecodeError, whose class moves between versions.
        raise _not_onnx(str(error), error) from error
    if not proto.HasField("graph"):
        raise _not_onnx("no graph in it" if onnx else "an empty file")
    return proto


def _check(data: bytes) -> None:
    """What onnx itself says of it; only after the audit, for its checker looks for files that are named."""
    import onnx as library

    try:
        library.checker.check_model(data)
    except Exception as error:  # onnx's classes share no root.
        raise _not_onnx(str(error), error) from error


def _not_onnx(told: str, error: Exception | None = None) -> ModelError:
    lines = told.strip().splitlines() or [type(error).__name__]
    return ModelError(
        "the bytes are not an ONNX model", value=lines[0][:200], fix="check that the file was copied whole"
    )


def _specs(items: Any) -> tuple[TensorSpec, ...]:
    import onnx

    found = []
    for item in items:
        kind = item.type.tensor_type
        shape = tuple(dim.dim_value if dim.HasField("dim_value") else DYNAMIC for dim in kind.shape.dim)
        try:
            text = kind.elem_type == onnx.TensorProto.STRING
            datatype = "BYTES" if text else datatype_of(onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type))
        except (KeyError, ValueError, TypeError):
            raise ModelError(f"{item.name!r} is no tensor that can be made", value=kind.elem_type) from None
        found.append(TensorSpec(item.name, datatype, shape))
    return tuple(found)
