"""The last strokes on a converter's graph: our names, our output, dead nodes gone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from modelyard.core.errors import ConversionError
from modelyard.core.spec import Tensors
from modelyard.model.model import MAIN_OUTPUT, Task


def finish(
    proto: Any,
    sample: Tensors,
    *,
    task: Task,
    inputs: Sequence[str],
    output: str,
    width: int,
    columns: Sequence[int] | None = None,
    softmax: bool = False,
) -> bytes:
    """The graph as bytes, with the sample's tensors as inputs and one main output `[N, width]`.

    `inputs` are the graph's names of the sample's tensors in order; those that the graph does not know are
    added, unused. `output` is the tensor that answers; `columns` says to which column of the answer each of
    its columns belongs (the others become 0).
    """
    name = MAIN_OUTPUT[task]
    if name in sample:
        raise ConversionError(
            "a feature has the name of the output", value=name, fix="rename the column in the contract"
        )
    graph = proto.graph
    names = dict(zip(inputs, sample, strict=True))
    taken = {*sample, name}
    for old in _tensor_names(graph):
        if old not in names:
            names[old] = _free(old, taken) if old in taken else old
    taken |= set(names.values())
    _rename(graph, names)
    last = names[output]
    if softmax:
        last = _append(graph, "Softmax", [last], taken, axis=-1)
    if columns is not None:
        last = _spread(graph, last, columns, width, taken)
    last = _append(graph, "Cast", [last], taken, to=1)
    shape = _constant(graph, "shape", [-1, width], taken)
    _append(graph, "Reshape", [last, shape], taken, result=name)
    _set_ends(graph, sample, name, width)
    _prune(graph)
    del graph.value_info[:]
    data: bytes = proto.SerializeToString(deterministic=True)
    return data


def prefix_matrix(proto: Any, matrix: str, sample: Tensors, names: Sequence[str]) -> None:
    """Puts nodes in front of a graph that takes a matrix, so that it takes the sample's tensors by `names`.

    A lone tensor is flattened to `[N, values]`, scalar columns are set side by side; numbers become float32.
    """
    import onnx

    made: list[Any] = []
    parts = []
    for index, (name, array) in enumerate(zip(names, sample.values(), strict=True)):
        last = name
        if array.dtype != object and str(array.dtype) != "float32":
            made.append(onnx.helper.make_node("Cast", [last], [f"{matrix}_cast{index}"], to=1))
            last = f"{matrix}_cast{index}"
        if array.ndim != 2:
            made.append(onnx.helper.make_node("Flatten", [last], [f"{matrix}_flat{index}"], axis=1))
            last = f"{matrix}_flat{index}"
        parts.append(last)
    joined = "Concat" if len(parts) > 1 else "Identity"
    options = {"axis": 1} if joined == "Concat" else {}
    made.append(onnx.helper.make_node(joined, parts, [matrix], **options))
    rest = list(proto.graph.node)
    del proto.graph.node[:]
    proto.graph.node.extend([*made, *rest])


def _spread(graph: Any, last: str, columns: Sequence[int], width: int, taken: set[str]) -> str:
    """Columns of classes that the estimator saw, each at its place; zeros where it saw none."""
    empty = len(columns)
    pads = _constant(graph, "class_pads", [0, 0, 0, 1], taken)
    padded = _append(graph, "Pad", [last, pads], taken)
    order = [columns.index(index) if index in columns else empty for index in range(width)]
    return _append(graph, "Gather", [padded, _constant(graph, "class_order", order, taken)], taken, axis=1)


def _append(
    graph: Any, kind: str, inputs: Sequence[str], taken: set[str], *, result: str = "", **options: Any
) -> str:
    import onnx

    result = result or _free(f"answer_{kind.lower()}", taken)
    taken.add(result)
    graph.node.append(
        onnx.helper.make_node(kind, list(inputs), [result], name=f"answer_{kind.lower()}", **options)
    )
    return result


def _constant(graph: Any, name: str, values: Sequence[int], taken: set[str]) -> str:
    import onnx

    name = _free(f"answer_{name}", taken)
    taken.add(name)
    graph.initializer.append(onnx.helper.make_tensor(name, onnx.TensorProto.INT64, [len(values)], values))
    return name


def _set_ends(graph: Any, sample: Tensors, name: str, width: int) -> None:
    import onnx

    helper = onnx.helper
    del graph.input[:]
    for key, array in sample.items():
        kind = 8 if array.dtype == object else helper.np_dtype_to_tensor_dtype(array.dtype)
        graph.input.append(helper.make_tensor_value_info(key, kind, ["N", *array.shape[1:]]))
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["N", width]))


def _tensor_names(graph: Any) -> list[str]:
    names: dict[str, None] = {}
    for item in (*graph.input, *graph.initializer):
        names[item.name] = None
    for node in graph.node:
        names.update(dict.fromkeys((*node.input, *node.output)))
        for inner in _subgraphs(node):
            names.update(dict.fromkeys(_tensor_names(inner)))
    names.pop("", None)
    return list(names)


def _rename(graph: Any, names: dict[str, str]) -> None:
    for item in (*graph.input, *graph.output, *graph.initializer, *graph.value_info):
        item.name = names.get(item.name, item.name)
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
        for inner in _subgraphs(node):
            _rename(inner, names)


def _subgraphs(node: Any) -> Iterable[Any]:
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def _prune(graph: Any) -> None:
    """Removes nodes and constants that the outputs do not need."""
    needed = {item.name for item in graph.output}
    kept = []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            kept.append(node)
            needed.update(node.input)
            for inner in _subgraphs(node):
                needed.update(_tensor_names(inner))
                needed.update(item.name for item in inner.output)
    del graph.node[:]
    graph.node.extend(reversed(kept))
    constants = [item for item in graph.initializer if item.name in needed]
    del graph.initializer[:]
    graph.initializer.extend(constants)


def _free(name: str, taken: set[str]) -> str:
    while name in taken:
        name += "_"
    return name
