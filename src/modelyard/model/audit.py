"""The structure of a graph held against the rules, before anything of onnx or onnxruntime looks at it."""

from __future__ import annotations

import graphlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from modelyard.core.errors import ModelError
from modelyard.model.limits import Limits
from modelyard.model.operators import CONTRIB, CONTRIB_OPERATORS, STANDARD

FunctionKey = tuple[str, str, str]


@dataclass(slots=True)
class _Count:
    """What has been counted so far, over all graphs and functions."""

    limits: Limits
    nodes: int = 0
    initializers: int = 0
    calls: dict[FunctionKey | None, list[tuple[FunctionKey | None, int]]] = field(default_factory=dict)
    current: FunctionKey | None = None

    def node(self) -> None:
        self.nodes += 1
        if self.nodes > self.limits.nodes:
            raise ModelError("the graph has too many nodes", rule=f"at most {self.limits.nodes}")

    def constant(self, number: int) -> None:
        self.initializers += number
        if self.initializers > self.limits.initializers:
            raise ModelError("the graph has too many constants", rule=f"at most {self.limits.initializers}")


def audit(model: Any, limits: Limits) -> None:
    """Raises `ModelError` for the first rule that the model breaks; changes nothing.

    Operators and versions, counts, nesting, names (each made once, and before it is used), and local
    functions, which must not call each other in a circle nor write out to more nodes than allowed.
    """
    versions = _versions(model.opset_import, limits)
    functions = _functions(model, limits)
    count = _Count(limits)
    _audit_graph(model.graph, set(), versions, functions, count, depth=1, weight=1)
    for key, function in functions.items():
        count.current = key
        count.calls.setdefault(key, [])
        inner = _versions(function.opset_import, limits)
        names = _unique([*function.input], f"the inputs of function {function.name!r}")
        _audit_nodes(function.node, names, set(), inner, functions, count, depth=1, weight=1)
        _produced(function.output, names, f"function {function.name!r}")
    _expansion(count.calls, limits)


def _versions(imports: Iterable[Any], limits: Limits) -> dict[str, int]:
    versions: dict[str, int] = {}
    for item in imports:
        domain = _plain(item.domain)
        if versions.get(domain, item.version) != item.version:
            raise ModelError(
                "an operator set is imported in two versions", value=item.domain, rule="one each"
            )
        versions[domain] = item.version
        low, high = {"": limits.opset, "ai.onnx.ml": limits.opset_ml}.get(domain, (1, 1 << 31))
        if not low <= item.version <= high:
            raise ModelError(
                f"the operator set {domain or 'ai.onnx'!r} has a version that is not known",
                value=item.version,
                rule=f"{low} to {high}",
                fix=f"export the model with opset {min(20, high)}",
            )
    return versions


def _functions(model: Any, limits: Limits) -> dict[FunctionKey, Any]:
    if len(model.functions) > limits.functions:
        raise ModelError(
            "too many local functions", value=len(model.functions), rule=f"at most {limits.functions}"
        )
    found: dict[FunctionKey, Any] = {}
    for function in model.functions:
        key = (_plain(function.domain), function.name, function.overload)
        if key in found or not function.name:
            raise ModelError("a local function is unnamed or defined twice", value=function.name)
        if key[0] in STANDARD or key[0] == CONTRIB:
            raise ModelError(
                "a local function takes the place of a standard operator",
                value=f"{function.domain}.{function.name}",
                rule="functions in a domain of their own",
            )
        found[key] = function
    return found


def _audit_graph(
    graph: Any,
    outer: set[str],
    versions: dict[str, int],
    functions: dict[FunctionKey, Any],
    count: _Count,
    *,
    depth: int,
    weight: int,
) -> None:
    limits = count.limits
    if depth > limits.depth:
        raise ModelError("subgraphs nest too deeply", rule=f"at most {limits.depth} levels")
    if len(graph.input) > limits.tensors or len(graph.output) > limits.tensors:
        raise ModelError("too many inputs or outputs", rule=f"at most {limits.tensors} each")
    count.constant(len(graph.initializer) + len(graph.sparse_initializer))
    inputs = _unique([item.name for item in graph.input], "the inputs of a graph")
    constants = _unique(
        [item.name for item in graph.initializer] + [item.values.name for item in graph.sparse_initializer],
        "the constants of a graph",
    )
    names = inputs | constants
    for name in names:
        _check_name(name, limits)
    _audit_nodes(
        graph.node, names, outer, versions, functions, count, depth=depth, weight=weight, graph=graph
    )
    outputs = [item.name for item in graph.output]
    _unique(outputs, "the outputs of a graph")
    _produced(outputs, names | outer, "the graph")


def _audit_nodes(
    nodes: Iterable[Any],
    names: set[str],
    outer: set[str],
    versions: dict[str, int],
    functions: dict[FunctionKey, Any],
    count: _Count,
    *,
    depth: int,
    weight: int,
    graph: Any = None,
) -> None:
    """Checks nodes in order and adds what they make to `names`: a name that is not there yet is a fault."""
    for node in nodes:
        count.node()
        what = f"the node {node.name or node.op_type!r}"
        _check_operator(node, versions, functions, count)
        for name in node.input:
            if name and name not in names and name not in outer:
                raise ModelError(
                    f"{what} uses a tensor that nothing before it makes",
                    value=name,
                    rule="nodes in the order in which they are computed, and no circle",
                )
        inner = _loop_weight(node, graph, weight, count.limits)
        seen: set[str] = set()
        for attribute in node.attribute:
            if attribute.name in seen or not attribute.name:
                raise ModelError(f"{what} has an attribute twice or without a name", value=attribute.name)
            seen.add(attribute.name)
            graphs = [attribute.g] if attribute.HasField("g") else []
            for subgraph in (*graphs, *attribute.graphs):
                _audit_graph(
                    subgraph, names | outer, versions, functions, count, depth=depth + 1, weight=inner
                )
        for name in node.output:
            if not name:
                continue
            _check_name(name, count.limits)
            if name in names or name in outer:
                raise ModelError(f"{what} makes a tensor that exists already", value=name, rule="each once")
            names.add(name)


def _check_operator(
    node: Any, versions: dict[str, int], functions: dict[FunctionKey, Any], count: _Count
) -> None:
    import onnx

    domain = _plain(node.domain)
    key = (domain, node.op_type, node.overload)
    caller = count.calls.setdefault(count.current, [])
    if key in functions:
        caller.append((key, 1))
        return
    caller.append((None, 1))
    if domain not in versions:
        raise ModelError(
            f"the operator set {domain or 'ai.onnx'!r} is used and not imported", value=node.op_type
        )
    if domain == CONTRIB and node.op_type in CONTRIB_OPERATORS:
        return
    if domain in STANDARD and onnx.defs.has(node.op_type, versions[domain], domain):
        return
    raise ModelError(
        "the graph uses an operator that is not allowed",
        value=f"{node.domain or 'ai.onnx'}.{node.op_type}",
        rule=f"ai.onnx and ai.onnx.ml, and {len(CONTRIB_OPERATORS)} operators of {CONTRIB}",
        fix="export the model with standard operators only",
    )


def _loop_weight(node: Any, graph: Any, weight: int, limits: Limits) -> int:
    """How often the bodies of this node may run at most; a Loop must carry a constant, bounded count."""
    if node.op_type != "Loop" or node.domain not in ("", "ai.onnx"):
        return weight
    name = node.input[0] if node.input else ""
    trips = _constant(graph, name) if name and graph is not None else None
    total = None if trips is None else weight * max(trips, 1)
    if total is None or total > limits.iterations:
        raise ModelError(
            f"the loop {node.name!r} has no bound",
            value="not a constant" if total is None else total,
            rule=f"a constant count of at most {limits.iterations} iterations, nested loops multiplied",
            fix="unroll the loop, or write it with Scan",
        )
    return total


def _constant(graph: Any, name: str) -> int | None:
    import onnx

    tensors = [item for item in graph.initializer if item.name == name]
    for node in graph.node:
        if node.op_type == "Constant" and name in node.output:
            tensors += [item.t for item in node.attribute if item.name == "value" and item.HasField("t")]
            values = [item.i for item in node.attribute if item.name == "value_int"]
            if values:
                return int(values[0])
    if not tensors or tensors[0].data_type != onnx.TensorProto.INT64:
        return None
    try:
        values = onnx.numpy_helper.to_array(tensors[0]).reshape(-1)
    except (ValueError, TypeError):
        return None
    return int(values[0]) if len(values) == 1 else None


def _expansion(calls: dict[FunctionKey | None, list[tuple[FunctionKey | None, int]]], limits: Limits) -> None:
    """Refuses functions that call each other in a circle, or write out to too many nodes."""
    order = graphlib.TopologicalSorter(
        {key: {callee for callee, _ in made if callee is not None} for key, made in calls.items()}
    )
    try:
        ordered = list(order.static_order())
    except graphlib.CycleError as error:
        raise ModelError("local functions call each other in a circle", value=error.args[1]) from error
    size: dict[FunctionKey | None, int] = {}
    for key in ordered:
        size[key] = sum(number if callee is None else size[callee] for callee, number in calls.get(key, []))
        if size[key] > limits.nodes:
            raise ModelError(
                "local functions write out to too many nodes", value=size[key], rule=f"at most {limits.nodes}"
            )


def _produced(outputs: Iterable[str], names: set[str], what: str) -> None:
    for name in outputs:
        if name not in names:
            raise ModelError(f"{what} promises an output that nothing makes", value=name)


def _unique(names: list[str], what: str) -> set[str]:
    known: set[str] = set()
    for name in names:
        if not name or name in known:
            raise ModelError(
                f"{what} have an empty name or a name twice", value=name, rule="each its own name"
            )
        known.add(name)
    return known


def _check_name(name: str, limits: Limits) -> None:
    if len(name) > limits.name or "\0" in name:
        raise ModelError(
            "a tensor's name is too long", value=len(name), rule=f"at most {limits.name} characters"
        )


def _plain(domain: str) -> str:
    return "" if domain == "ai.onnx" else domain
