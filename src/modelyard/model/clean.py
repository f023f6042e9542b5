"""One spelling for a graph: without the traces that exporters leave, and with the same bytes each time."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

_PRODUCER = re.compile(r"[^A-Za-z0-9 ._+-]")


def clean(model: Any) -> None:
    """Drops, in place, all documentation, metadata, device placements and unused operator sets.

    Exporters write stack traces, user names and build paths there. Also takes constants out of the graph's
    inputs (the old style in which a caller could replace a weight) and unknown fields out of the file.
    """
    model.DiscardUnknownFields()
    model.doc_string = ""
    model.ClearField("doc_string")
    model.ClearField("model_version")
    model.ClearField("domain")
    del model.metadata_props[:]
    del model.configuration[:]
    name = _PRODUCER.sub("_", model.producer_name)[:64]
    version = _PRODUCER.sub("_", model.producer_version)[:32]
    model.producer_name, model.producer_version = name, version
    _clean_graph(model.graph)
    for function in model.functions:
        function.ClearField("doc_string")
        del function.metadata_props[:]
        _clean_nodes(function.node)
        for info in function.value_info:
            _clean_info(info)
    constants = {item.name for item in model.graph.initializer}
    constants |= {item.values.name for item in model.graph.sparse_initializer}
    kept = [item for item in model.graph.input if item.name not in constants]
    if len(kept) < len(model.graph.input):
        model.ir_version = max(model.ir_version, 4)
        del model.graph.input[:]
        model.graph.input.extend(kept)
    _clean_imports(model)


def canonical_bytes(model: Any) -> bytes:
    """The model's bytes; the same model gives the same bytes in every process."""
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def _clean_imports(model: Any) -> None:
    used = {_plain(node.domain) for node in _all_nodes(model)} | {""}
    kept = sorted({(_plain(item.domain), item.version) for item in model.opset_import})
    del model.opset_import[:]
    for domain, version in kept:
        if domain in used:
            item = model.opset_import.add()
            item.domain, item.version = domain, version


def _all_nodes(model: Any) -> Iterable[Any]:
    stack = [*model.graph.node, *(node for function in model.functions for node in function.node)]
    while stack:
        node = stack.pop()
        yield node
        for attribute in node.attribute:
            stack.extend(attribute.g.node if attribute.HasField("g") else ())
            for graph in attribute.graphs:
                stack.extend(graph.node)


def _clean_graph(graph: Any) -> None:
    graph.ClearField("doc_string")
    del graph.metadata_props[:]
    for tensor in graph.initializer:
        _clean_tensor(tensor)
    for info in (*graph.input, *graph.output, *graph.value_info):
        _clean_info(info)
    _clean_nodes(graph.node)


def _clean_nodes(nodes: Iterable[Any]) -> None:
    for node in nodes:
        node.ClearField("doc_string")
        del node.metadata_props[:]
        del node.device_configurations[:]
        for attribute in node.attribute:
            attribute.ClearField("doc_string")
            if attribute.HasField("t"):
                _clean_tensor(attribute.t)
            for tensor in attribute.tensors:
                _clean_tensor(tensor)
            if attribute.HasField("g"):
                _clean_graph(attribute.g)
            for graph in attribute.graphs:
                _clean_graph(graph)


def _clean_info(info: Any) -> None:
    info.ClearField("doc_string")
    del info.metadata_props[:]


def _clean_tensor(tensor: Any) -> None:
    tensor.ClearField("doc_string")
    del tensor.metadata_props[:]


def _plain(domain: str) -> str:
    return "" if domain == "ai.onnx" else domain
