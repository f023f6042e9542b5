"""The least memory that activations need: which tensors are alive at the same time."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from modelyard.compress.inspect.facts import GraphFacts

_VIEWS = frozenset({"Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "DequantizeLinear"})
"""Their output needs no memory of its own: another view, or a scaled reading, of what they are given."""


@dataclass(frozen=True, slots=True)
class Liveness:
    """`peak` bytes, reached while node `node` runs, and the bytes alive while each node runs."""

    peak: int
    node: int | None
    alive: tuple[int, ...]


def liveness(facts: GraphFacts) -> Liveness:
    """The peak of activations over the nodes in their order; constants are not counted.

    A tensor lives from the node that gives it to the last that reads it, an answer to the end. Views share
    their tensor's memory, and what is only quantized next is counted in its quantized size, as an engine
    that fuses the two holds it.
    """
    owner = _owners(facts)
    last: dict[str, int] = {}
    for node in facts.nodes:
        for name in node.reads:
            last[owner.get(name, name)] = node.index
    last |= {owner.get(name, name): len(facts.nodes) for name in facts.outputs}
    size = {name: item.size for name, item in facts.tensors.items() if not item.constant}
    held = {name: size[name] for name in facts.inputs if name in size}
    alive = []
    for node in facts.nodes:
        for name in node.gives:
            real = owner.get(name, name)
            if real in size and real not in held and last.get(real, -1) >= node.index:
                held[real] = size[real]
        alive.append(sum(held.values()))
        held = {name: count for name, count in held.items() if last.get(name, -1) > node.index}
    if not alive:
        return Liveness(sum(held.values()), None, ())
    peak = max(alive)
    return Liveness(peak, alive.index(peak), tuple(alive))


def _owners(facts: GraphFacts) -> dict[str, str]:
    """The tensor whose memory each view uses, by the view's name."""
    readers = Counter(name for node in facts.nodes for name in node.reads)
    owner: dict[str, str] = {}
    for node in facts.nodes:
        if not node.reads or not node.gives:
            continue
        source = node.reads[0]
        if node.operator in _VIEWS:
            owner[node.gives[0]] = owner.get(source, source)
        elif node.operator == "QuantizeLinear" and readers[source] == 1 and source not in facts.inputs:
            owner.setdefault(source, node.gives[0])
    return owner
