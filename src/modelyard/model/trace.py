"""What every node of a graph computes, for finding where two executions part."""

from __future__ import annotations

from modelyard.core.spec import Tensors
from modelyard.model.model import Model
from modelyard.model.onnx_runtime import open_engine
from modelyard.model.runtime import RuntimeOptions


def intermediate(model: Model, tensors: Tensors) -> Tensors:
    """Every tensor that the graph computes for these rows, by the name it has in the graph.

    The graph runs as it is written, unoptimised, so that each node's outputs exist; those that are no
    tensors (sequences, maps) are left out. The order is that of the nodes, the answers included. Raises
    `ModelError` when the engine fails.
    """
    import onnx

    proto = onnx.ModelProto.FromString(model.onnx)
    known = {item.name for item in proto.graph.output}
    names = list(dict.fromkeys(name for node in proto.graph.node for name in node.output if name))
    inferred = onnx.shape_inference.infer_shapes(proto, data_prop=True).graph
    tensor = {
        item.name: item
        for item in (*inferred.value_info, *inferred.output)
        if item.type.WhichOneof("value") == "tensor_type"
    }
    proto.graph.output.extend(
        tensor.get(name) or onnx.ValueInfoProto(name=name) for name in names if name not in known
    )
    engine = open_engine(proto.SerializeToString(), RuntimeOptions(optimize="none"))
    wanted = [name for name in names if name in tensor or name in known]
    return dict(zip(wanted, engine.run(wanted, tensors), strict=True))
