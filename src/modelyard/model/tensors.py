"""The constants inside a graph: where they are, how large they claim to be, and that nothing is elsewhere."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from modelyard.core.digest import digest_bytes, is_digest
from modelyard.core.errors import ModelError, StoreError
from modelyard.model.limits import Limits

if TYPE_CHECKING:
    from modelyard.store.objects import ObjectStore

_FIX_EXTERNAL = "save the model in one file (onnx.save with save_as_external_data=False)"


def constants(model: Any) -> Iterator[Any]:
    """Every TensorProto of a model: initialisers, attributes, sparse parts, subgraphs and functions.

    Nesting is bounded by protobuf's own limit of 100 levels.
    """
    yield from _of_graph(model.graph)
    for function in model.functions:
        yield from _of_nodes(function.node)
        for attribute in function.attribute_proto:
            yield from _of_attribute(attribute)
    for training in model.training_info:
        yield from _of_graph(training.initialization)
        yield from _of_graph(training.algorithm)


def _of_graph(graph: Any) -> Iterator[Any]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield sparse.values
        yield sparse.indices
    yield from _of_nodes(graph.node)


def _of_nodes(nodes: Iterable[Any]) -> Iterator[Any]:
    for node in nodes:
        for attribute in node.attribute:
            yield from _of_attribute(attribute)


def _of_attribute(attribute: Any) -> Iterator[Any]:
    if attribute.HasField("t"):
        yield attribute.t
    yield from attribute.tensors
    single = [attribute.sparse_tensor] if attribute.HasField("sparse_tensor") else []
    for sparse in (*single, *attribute.sparse_tensors):
        yield sparse.values
        yield sparse.indices
    if attribute.HasField("g"):
        yield from _of_graph(attribute.g)
    for graph in attribute.graphs:
        yield from _of_graph(graph)


def inline_blobs(tensor: Any, blobs: ObjectStore | None, budget: int) -> int:
    """Puts the bytes of a digest-pinned blob into the tensor and returns how many; 0 when it is whole.

    Raises `ModelError` for data that lies anywhere else: no path is ever looked at, let alone opened.
    """
    if tensor.data_location != tensor.EXTERNAL:
        if tensor.external_data:
            raise ModelError(
                "a tensor names external data that it does not use", value=tensor.name, fix=_FIX_EXTERNAL
            )
        return 0
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    if not is_digest(location):
        raise ModelError(
            f"the tensor {tensor.name!r} has its data outside the file",
            value=location,
            rule="data inside the file, or a sha256: digest of a blob in our store",
            fix=_FIX_EXTERNAL,
        )
    if blobs is None:
        raise ModelError(
            f"the tensor {tensor.name!r} is a blob", value=location, fix="give the store that holds the blob"
        )
    try:
        data = blobs.get(location)
    except StoreError as error:
        raise ModelError(f"the blob of {tensor.name!r} cannot be read", value=str(error)) from error
    if digest_bytes(data) != location:
        raise ModelError(f"the blob of {tensor.name!r} has another digest", value=digest_bytes(data))
    part = _slice(data, entries, tensor.name)
    if len(part) > budget:
        raise ModelError(
            "the blobs of the model are too large together", value=len(part), rule=f"{budget} bytes left"
        )
    del tensor.external_data[:]
    tensor.ClearField("data_location")
    tensor.raw_data = part
    return len(part)


def _slice(data: bytes, entries: dict[str, str], name: str) -> bytes:
    numbers = {}
    for key, default in (("offset", 0), ("length", None)):
        text = entries.get(key)
        if text is not None and not (text.isascii() and text.isdigit() and len(text) < 20):
            raise ModelError(f"the {key} of {name!r} is not a number", value=text)
        numbers[key] = default if text is None else int(text)
    offset = numbers["offset"] or 0
    length = len(data) - offset if numbers["length"] is None else numbers["length"]
    if offset > len(data) or length > len(data) - offset:
        raise ModelError(f"the blob of {name!r} is shorter than its place in it", value=(offset, length))
    return data[offset : offset + length]


def check_tensor(tensor: Any, limits: Limits) -> None:
    """Refuses a tensor whose claimed shape is too large or does not match the data it carries."""
    import onnx

    count = count_elements(tensor.dims, limits, f"the tensor {tensor.name!r}")
    kinds = onnx.TensorProto.DataType
    if tensor.data_type not in kinds.values() or tensor.data_type == onnx.TensorProto.UNDEFINED:
        raise ModelError(f"the tensor {tensor.name!r} has no datatype", value=tensor.data_type)
    if tensor.HasField("segment"):
        raise ModelError(f"the tensor {tensor.name!r} is a segment", rule="whole tensors")
    if tensor.data_type == onnx.TensorProto.STRING:
        held, want = len(tensor.string_data), count
    elif tensor.HasField("raw_data"):
        held, want = len(tensor.raw_data), _bytes_of(tensor.data_type, count)
    else:
        held, want = _typed_length(tensor), _typed_want(tensor.data_type, count)
    if held != want:
        raise ModelError(
            f"the tensor {tensor.name!r} does not hold what its shape says",
            value=f"{held} for shape {list(tensor.dims)}",
            rule=f"{want}",
            fix="export the model again",
        )


def count_elements(dims: Iterable[int], limits: Limits, what: str) -> int:
    """The product of the dimensions; raises `ModelError` where negative, of too high a rank or too large."""
    sizes = list(dims)
    if len(sizes) > limits.rank or any(size < 0 for size in sizes):
        raise ModelError(
            f"{what} has an impossible shape",
            value=sizes[:20],
            rule=f"rank at most {limits.rank}, sizes from 0",
        )
    # Python's integers do not overflow: 2^32 x 2^32 is not 0 here.
    count = math.prod(sizes)
    if count > limits.elements or max(sizes, default=0) > limits.elements:
        raise ModelError(
            f"{what} is too large",
            value=sizes,
            rule=f"at most {limits.elements} elements, with a batch of one",
        )
    return count


_BITS = {"INT4": 4, "UINT4": 4, "FLOAT4E2M1": 4, "INT2": 2, "UINT2": 2}


def _bits(data_type: int) -> int:
    import onnx

    name = onnx.TensorProto.DataType.Name(data_type)
    return _BITS.get(name) or int(onnx.helper.tensor_dtype_to_np_dtype(data_type).itemsize) * 8


def _bytes_of(data_type: int, count: int) -> int:
    return -(-count * _bits(data_type) // 8)


def _typed_length(tensor: Any) -> int:
    return sum(
        len(values)
        for values in (
            tensor.float_data,
            tensor.int32_data,
            tensor.int64_data,
            tensor.double_data,
            tensor.uint64_data,
        )
    )


def _typed_want(data_type: int, count: int) -> int:
    import onnx

    if data_type in (onnx.TensorProto.COMPLEX64, onnx.TensorProto.COMPLEX128):
        return 2 * count
    bits = _bits(data_type)
    return -(-count * bits // 8) if bits < 8 else count
