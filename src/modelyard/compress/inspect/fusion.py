"""Which nodes an engine melted into which, as far as what it ran tells."""

from __future__ import annotations

from collections.abc import Sequence

from modelyard.compress.execution import OperatorRun
from modelyard.compress.inspect.facts import GraphFacts, NodeFact
from modelyard.compress.inspect.macs import COUNTED


def fusion(facts: GraphFacts, runs: Sequence[OperatorRun]) -> dict[int, int | None]:
    """For each node that did not run by itself, the node whose operator does its work; `None`: folded.

    Folded nodes depend on constants alone. Products are looked for downstream first (a convolution that runs
    under its activation's name), everything else upstream first (an activation inside a product).
    """
    seen = {run.index for run in runs if run.index is not None}
    makers = {name: node for node in facts.nodes for name in node.gives}
    readers: dict[str, list[NodeFact]] = {}
    for node in facts.nodes:
        for name in node.reads:
            readers.setdefault(name, []).append(node)
    found: dict[int, int | None] = {}
    for node in facts.nodes:
        if node.index in seen:
            continue
        if all(facts.tensors[name].constant for name in node.gives if name in facts.tensors):
            found[node.index] = None
            continue
        ways = (_down, _up) if node.operator in COUNTED else (_up, _down)
        if node.operator == "DequantizeLinear":
            ways = (_down, _up)
        homes = (way(node, seen, makers, readers) for way in ways)
        found[node.index] = next((home for home in homes if home is not None), None)
    return found


def _up(
    node: NodeFact, seen: set[int], makers: dict[str, NodeFact], readers: dict[str, list[NodeFact]]
) -> int | None:
    for _ in range(64):
        before = next((makers[name] for name in node.reads if name in makers), None)
        if before is None:
            return None
        if before.index in seen:
            return before.index
        node = before
    return None


def _down(
    node: NodeFact, seen: set[int], makers: dict[str, NodeFact], readers: dict[str, list[NodeFact]]
) -> int | None:
    for _ in range(64):
        after = next((item for name in node.gives for item in readers.get(name, ())), None)
        if after is None:
            return None
        if after.index in seen:
            return after.index
        node = after
    return None
