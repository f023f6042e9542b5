"""The signature of a graph, held against the one tensor rule."""

from __future__ import annotations

from typing import Any

from modelyard.core.errors import ModelError
from modelyard.core.spec import DYNAMIC, Signature, TensorSpec, datatype_of
from modelyard.model.limits import Limits
from modelyard.model.model import MAIN_OUTPUT, Task
from modelyard.model.tensors import count_elements

_FIX_BATCH = (
    "export it with a dynamic batch (torch: dynamic_shapes; Keras: batch_size=None), first dimension N"
)


def graph_signature(graph: Any, task: Task, labels: tuple[str, ...], limits: Limits) -> Signature:
    """The inputs and outputs of a graph whose shapes were inferred.

    Raises `ModelError` that says which tensor breaks the rule and how to mend it: tensors only, a dynamic
    first dimension, scalars as [N,1], `probabilities` FP32 [N,K] or `prediction` FP32 [N,1] among the
    outputs.
    """
    if not graph.input:
        raise ModelError("the graph has no input", rule="one input a feature")
    inputs = tuple(_spec(item, "input", limits) for item in graph.input)
    outputs = tuple(_spec(item, "output", limits) for item in graph.output)
    name = MAIN_OUTPUT[task]
    main = next((spec for spec in outputs if spec.name == name), None)
    known = [spec.name for spec in outputs]
    if main is None:
        raise ModelError(
            f"a {task} model needs an output named {name!r}",
            value=known,
            fix=f"rename the output to {name!r}",
        )
    width = 1 if task == "regression" else (len(labels) or None)
    wanted = f"FP32 [N, {width or 'K'}]" + (f" for the labels {', '.join(labels[:10])}" if labels else "")
    fits = len(main.shape) == 2 and main.shape[1] != DYNAMIC and main.shape[1] == (width or main.shape[1])
    if main.datatype != "FP32" or not fits:
        raise ModelError(
            f"the output {name!r} has the wrong type or shape",
            value=f"{main.datatype} {list(main.shape)}",
            rule=wanted,
            fix="end the graph in a Softmax over the classes" if task == "classification" else "reshape it",
        )
    return Signature(inputs, outputs)


def _spec(item: Any, side: str, limits: Limits) -> TensorSpec:
    import onnx

    what = f"the {side} {item.name!r}"
    if item.type.WhichOneof("value") != "tensor_type":
        raise ModelError(
            f"{what} is no tensor", value=item.type.WhichOneof("value"), fix="turn ZipMap off, or cast it"
        )
    tensor = item.type.tensor_type
    if tensor.elem_type == onnx.TensorProto.STRING:
        datatype = "BYTES"
    else:
        try:
            datatype = datatype_of(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type))
        except (KeyError, ValueError, TypeError):
            raise ModelError(
                f"{what} has a datatype that clients cannot send", value=tensor.elem_type, fix="use float32"
            ) from None
    if not tensor.HasField("shape") or not tensor.shape.dim:
        raise ModelError(
            f"{what} has no shape", rule="[N, ...] with a dynamic first dimension", fix=_FIX_BATCH
        )
    shape = tuple(dim.dim_value if dim.HasField("dim_value") else DYNAMIC for dim in tensor.shape.dim)
    if shape[0] != DYNAMIC:
        raise ModelError(
            f"{what} has a fixed batch", value=list(shape), rule="a dynamic first dimension", fix=_FIX_BATCH
        )
    if len(shape) == 1 and side == "input":
        raise ModelError(
            f"{what} has one dimension",
            value=["N"],
            rule="[N, 1] for a scalar column",
            fix="reshape it to [N, 1]",
        )
    if any(size == 0 or size < DYNAMIC for size in shape):
        raise ModelError(
            f"{what} has an impossible shape", value=list(shape), rule="sizes from 1, or dynamic"
        )
    count_elements([size for size in shape if size != DYNAMIC], limits, what)
    return TensorSpec(item.name, datatype, shape)
