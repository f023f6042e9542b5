"""Structured pruning: channels, hidden units and attention heads leave, and the graph is really smaller."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from modelyard.compress import graph_file as gf
from modelyard.compress.pass_protocol import Compressed
from modelyard.compress.passes.layers import (
    Array,
    array_of,
    attribute,
    done,
    editable,
    fresh,
    put,
    replace_node,
    share,
    some_layers,
)  # fmt: skip
from modelyard.compress.passes.proof import same_answers
from modelyard.compress.plan_option import check_options, option, spelled
from modelyard.compress.prune_dims import Tie
from modelyard.compress.prune_follow import Follower
from modelyard.core.errors import CompressError
from modelyard.core.spec import Tensors

if TYPE_CHECKING:
    from modelyard.model.model import Model

_PRIVATE = 1 << 16
"""Constants up to this many values get a copy a reader, so that one may shrink and the other not."""


@dataclass(frozen=True, slots=True)
class StructuredPrune:
    """Takes out the least important units of every dimension that can shrink.

    Dimensions are followed through the graph (`prune_follow.py`): residual additions couple layers, depthwise
    convolutions go along, heads are cut as blocks through query, key, value and output (after DepGraph, Fang
    et al. 2023, arXiv:2301.12900). One that meets an operator which is not followed keeps its size, and the
    notes say so. `score="path"` ranks units by the norm of the weights that make them times the norm of those
    that read them, which does not change when a ReLU network is rescaled; "l1" by the sum of the magnitudes
    that make them (Li et al. 2017, arXiv:1608.08710). The pass proves on calibration rows that the small
    graph answers as the large one with those units silenced.
    """

    sparsity: float = option(0.5, "the share of units that leave", low=0.01, high=0.98)
    score: str = option("path", "how units are ranked", choices=("path", "l1"))
    multiple: int = option(1, "what stays is a multiple of this, for vector units", low=1, high=64)
    units: str = option("all", "which units", choices=("all", "channels", "heads"))

    def __post_init__(self) -> None:
        check_options(self)

    @property
    def name(self) -> str:
        return spelled("prune-units", self)

    def apply(self, model: Model, calibration: Tensors) -> Compressed:
        """The smaller model; `CompressError` where no dimension can shrink."""
        proto = attention_transposed(editable(model))
        _, left = some_layers(proto)
        _privatise(proto)
        follower = Follower(proto)
        follower.walk()
        before = _weights(proto)
        plan, notes = self._chosen(follower)
        if not plan:
            raise CompressError("does not apply: no dimension can shrink", value="; ".join(notes[:4]) or None)
        groups = follower.dims.groups()
        silenced = type(proto).FromString(proto.SerializeToString())
        _silence(silenced, {root: groups[root] for root in plan}, plan)
        for root, kept in plan.items():
            for tie in groups[root]:
                _shrink(proto, tie, kept)
        _resize(proto, follower, plan)
        result = done(proto, model, ())
        same_answers(done(silenced, model, ()).model, result.model, calibration)
        after = _weights(proto)
        first = f"{len(plan)} dimensions shrink; {after} of {before} weights left ({share(after, before)})"
        return Compressed(result.model, (first, *notes, *left))

    def _chosen(self, follower: Follower) -> tuple[dict[int, Array], list[str]]:
        """The units to keep of each dimension that shrinks, sorted; and what became of all."""
        plan: dict[int, Array] = {}
        notes = []
        groups = follower.dims.groups()
        names: dict[int, list[str]] = {}
        for dim, name in follower.made_by.items():
            names.setdefault(follower.dims.root(dim)[0], []).append(name)
        for root, ties in groups.items():
            size, called = follower.dims.size(root), " + ".join(names.get(root, ["?"]))
            roles = Counter(tie.role for tie in ties)
            why = follower.dims.why_frozen(root)
            heads = any(tie.role == "out" and tie.inner > 1 for tie in ties)
            if not why and (not roles["out"] or not roles["in"]):
                why = "is read by no layer"
            if not why and self.units != "all" and heads != (self.units == "heads"):
                continue
            if why:
                notes.append(f"keeps its size: {called}, which {why}")
                continue
            count = -(-max(1, round(size * (1 - self.sparsity))) // self.multiple) * self.multiple
            if count >= size:
                continue
            scores = _scores(follower, ties, size, self.score)
            plan[root] = np.sort(np.argsort(-scores, kind="stable")[:count])
            notes.append(f"{called}: {size} -> {count} {'heads' if heads else 'units'}")
        return plan, notes


def attention_transposed(proto: Any) -> Any:
    """The graph with keys turned by one Transpose where torch's exporter writes a flattened one.

    `Reshape [.., T, D] to [-1, T, D]`, `Transpose (0, 2, 1)` and a `Reshape` back swap the last two axes
    of a tensor of rank four.
    """
    import onnx

    made = {node.output[0]: node for node in proto.graph.node if node.output}
    uses = Counter(name for node in proto.graph.node for name in node.input)
    for last in [node for node in proto.graph.node if node.op_type == "Reshape"]:
        turn = made.get(last.input[0])
        first = made.get(turn.input[0]) if turn is not None and turn.op_type == "Transpose" else None
        if first is None or turn is None or first.op_type != "Reshape":
            continue
        if (
            list(attribute(turn, "perm", ())) != [0, 2, 1]
            or uses[turn.output[0]] > 1
            or uses[first.output[0]] > 1
        ):
            continue
        source = made.get(first.input[0])
        # Both targets come from the shape of the tensor itself: nothing but the swap can be meant.
        if source is None or not (_from_shape(made, first.input[1]) and _from_shape(made, last.input[1])):
            continue
        node = onnx.helper.make_node("Transpose", [first.input[0]], list(last.output), perm=[0, 1, 3, 2])
        replace_node(proto, next(item for item in proto.graph.node if item.output == last.output), [node])
    gf.drop_dead(proto.graph)
    return proto


def _from_shape(made: dict[str, Any], name: str) -> bool:
    """Whether a shape is put together from the parts of a `Shape`."""
    node = made.get(name)
    if node is None or node.op_type != "Concat":
        return False
    seen, stack = set(), [part for part in node.input if part in made]
    while stack:
        node = made[stack.pop()]
        seen.add(node.op_type)
        stack.extend(part for part in node.input[:1] if part in made and node.op_type != "Shape")
    return "Shape" in seen and seen <= {"Shape", "Slice", "Gather", "Squeeze", "Unsqueeze", "Cast"}


def _privatise(proto: Any) -> None:
    """Gives each reader of a small shared constant a copy of its own."""
    tensors = {item.name: item for item in proto.graph.initializer if int(np.prod(item.dims)) <= _PRIVATE}
    # What an inner graph reads keeps its name and its size.
    seen = {name for node in proto.graph.node for name in list(gf.reads(node))[len(node.input) :]}
    for node in proto.graph.node:
        for index, name in enumerate(node.input):
            if name in seen and name in tensors:
                copy = fresh(proto, name)
                put(proto, copy, array_of(tensors[name]))
                node.input[index] = copy
            seen.add(name)


def _scores(follower: Follower, ties: list[Tie], size: int, score: str) -> Array:
    """The importance of each unit [size], from the weights that make it and those that read it."""
    made, read = np.zeros(size), np.zeros(size)
    for tie in ties:
        values = np.moveaxis(follower.constants[tie.constant].astype(np.float64), tie.axis, 0)
        blocks = values.reshape(size, -1)
        if score == "l1":
            made += np.abs(blocks).sum(axis=1) if tie.role == "out" else 0.0
        elif tie.role == "out":
            made += np.square(blocks).sum(axis=1)
        elif tie.role == "in":
            read += np.square(blocks).sum(axis=1)
    return made if score == "l1" else np.sqrt(made * read)


def _places(kept: Array, inner: int) -> Array:
    """Positions on an axis of the units that stay."""
    found: Array = (kept[:, None] * inner + np.arange(inner)).ravel()
    return found


def _shrink(proto: Any, tie: Tie, kept: Array) -> None:
    values = _constant(proto, tie.constant)
    put(proto, tie.constant, np.take(values, _places(kept, tie.inner), axis=tie.axis))


def _constant(proto: Any, name: str) -> Array:
    return array_of(next(item for item in proto.graph.initializer if item.name == name))


def _silence(proto: Any, groups: dict[int, list[Tie]], plan: dict[int, Array]) -> None:
    """Sets to zero what reads the units that leave."""
    for root, ties in groups.items():
        for tie in ties:
            if tie.role == "in":
                values = _constant(proto, tie.constant)
                mask = np.zeros(values.shape[tie.axis], dtype=np.float32)
                mask[_places(plan[root], tie.inner)] = 1
                shape = [1] * values.ndim
                shape[tie.axis] = -1
                put(proto, tie.constant, values * mask.reshape(shape))


def _resize(proto: Any, follower: Follower, plan: dict[int, Array]) -> None:
    """Writes the new sizes where the graph names them: targets of reshapes, groups of convolutions."""
    for node, place, held in follower.resized:
        root, factor = follower.dims.root(held.dim)
        if root in plan:
            target = _constant(proto, node.input[1])
            target[place] = len(plan[root]) * factor * held.inner
            put(proto, node.input[1], target)
    for node, held in follower.grouped:
        root, factor = follower.dims.root(held.dim)
        if root in plan:
            for item in node.attribute:
                if item.name == "group":
                    item.i = len(plan[root]) * factor * held.inner


def _weights(proto: Any) -> int:
    return sum(int(np.prod(item.dims)) for item in proto.graph.initializer)
