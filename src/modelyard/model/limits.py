"""How large a graph from outside may be before it is refused."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds that a graph must keep, each checked before the work that it bounds.

    `nodes` counts every node of every subgraph, with calls of local functions written out; `elements` is
    the most that one tensor may hold (with a batch of one); `iterations` the most a `Loop` may be told to
    do; `messages` how many protobuf messages and strings the file may consist of.
    """

    bytes: int = 1 << 30
    messages: int = 8_000_000
    nodes: int = 100_000
    initializers: int = 100_000
    depth: int = 8
    functions: int = 1_000
    tensors: int = 1_024
    rank: int = 16
    elements: int = 1 << 28
    iterations: int = 10_000
    opset: tuple[int, int] = (7, 26)
    opset_ml: tuple[int, int] = (1, 5)
    name: int = 4_096


DEFAULT_LIMITS = Limits()
