"""One model looked into: its nodes, what they cost, and what the engine made of them on this machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from modelyard.compress.execution import OperatorRun, meant_int8, operator_runs, ran_as_meant
from modelyard.compress.graph_file import parse
from modelyard.compress.inspect.facts import GraphFacts, graph_facts, one_row
from modelyard.compress.inspect.fusion import fusion
from modelyard.compress.inspect.liveness import Liveness, liveness
from modelyard.compress.inspect.roofline import Roof
from modelyard.core.digest import JSON, finite
from modelyard.core.errors import ModelError
from modelyard.core.spec import Tensors

if TYPE_CHECKING:
    from modelyard.model.model import Model

VERSION = 1
"""Of `Inspection.to_json`. Raised when a field goes or changes its meaning."""


@dataclass(frozen=True, slots=True)
class NodeTime:
    """A node of the graph as it ran: the engine's operator, seconds a run, and its place under the roof.

    `into` is the node that it was fused into, "folded" for what the engine computed at load, empty where it
    ran by itself. `reached` is the share of what the roof allows at its `intensity` (operations a byte);
    `bound` says which side of the roof that is.
    """

    operator: str
    seconds: float
    int8: bool
    into: str
    intensity: float
    reached: float
    bound: str


@dataclass(frozen=True, slots=True)
class Inspection:
    """Everything that `modelyard inspect` shows."""

    digest: str
    facts: GraphFacts
    memory: Liveness
    runtime: str
    runs: tuple[OperatorRun, ...]
    times: Mapping[int, NodeTime]
    not_int8: tuple[str, ...]
    """Nodes that the graph means to be int8 and the engine runs in float."""
    roof: Roof | None
    notes: tuple[str, ...]

    @property
    def seconds(self) -> float:
        """The time of all operators together, for the one row."""
        return sum(run.seconds for run in self.runs)

    def by_operator(self) -> tuple[tuple[str, int, float, bool], ...]:
        """(engine's operator, how many, seconds, int8), the dearest first."""
        found: dict[str, tuple[int, float, bool]] = {}
        for run in self.runs:
            count, seconds, int8 = found.get(run.operator, (0, 0.0, False))
            found[run.operator] = (count + 1, seconds + run.seconds, int8 or run.int8)
        rows = [(name, *values) for name, values in found.items()]
        return tuple(sorted(rows, key=lambda row: -row[2]))

    def to_json(self) -> JSON:
        nodes = []
        for node in self.facts.nodes:
            time = self.times.get(node.index)
            gives = [_shape(self.facts, name) for name in node.gives]
            nodes.append(
                {
                    "index": node.index, "name": node.name, "operator": node.operator,
                    "reads": list(node.reads), "gives": list(node.gives), "shapes": gives,
                    "macs": node.macs, "weight_bytes": node.weights, "moved_bytes": node.moved,
                    "meant_int8": node.int8,
                    "ran": None if time is None else {
                        "operator": time.operator, "seconds": time.seconds, "int8": time.int8,
                        "into": time.into, "intensity": time.intensity, "reached": time.reached,
                        "bound": time.bound,
                    },
                }
            )  # fmt: skip
        return finite(
            {
                "version": VERSION,
                "digest": self.digest,
                "bytes": self.facts.bytes,
                "macs": self.facts.macs,
                "parameter_bytes": self.facts.parameters,
                "peak_activation_bytes": self.memory.peak,
                "operators": self.facts.operators,
                "runtime": self.runtime,
                "seconds": self.seconds,
                "engine": [run.to_json() for run in self.runs],
                "not_int8": list(self.not_int8),
                "roof": None if self.roof is None else self.roof.to_json(),
                "nodes": nodes,
                "notes": list(self.notes),
            }
        )


def inspect_model(
    model: Model,
    rows: Tensors | None = None,
    *,
    runtime: str = "onnxruntime",
    roof: Roof | None = None,
    repeats: int = 30,
    sizes: Mapping[str, int] | None = None,
) -> Inspection:
    """Looks into a model with these rows, or one row of zeros (`sizes` for its unknown dimensions).

    What the engine does not tell, or cannot run, is left out and said in the notes; `MissingExtra` when the
    engine is not installed. Operators are timed one after the other for `repeats` runs.
    """
    notes: list[str] = []
    if rows is None:
        rows, assumed = one_row(model, sizes)
        notes.extend(assumed)
    facts = graph_facts(model, rows)
    notes.extend(facts.notes)
    try:
        runs = operator_runs(model, rows, runtime=runtime, repeats=repeats)
    except ModelError as error:
        runs = ()
        notes.append(f"not timed: {error}")
    if runs is None:
        runs = ()
        notes.append(f"{runtime} does not tell which operators it runs")
    missing = ran_as_meant(meant_int8(parse(model)), runs)[0] if runs else ()
    return Inspection(
        model.digest,
        facts,
        liveness(facts),
        runtime,
        runs,
        _times(facts, runs, roof),
        missing,
        roof,
        tuple(notes),
    )


def _times(facts: GraphFacts, runs: tuple[OperatorRun, ...], roof: Roof | None) -> dict[int, NodeTime]:
    if not runs:
        return {}
    into = fusion(facts, runs)
    members: dict[int, list[int]] = {}
    for index, home in into.items():
        if home is not None:
            members.setdefault(home, []).append(index)
    found = {}
    for run in runs:
        if run.index is None or run.index in found:
            continue
        group = [facts.nodes[index] for index in (run.index, *members.get(run.index, ()))]
        work = 2 * sum(node.macs for node in group)
        moved = max(1, sum(node.weights for node in group) + _edges(facts, group))
        place = _place(roof, work, moved, run)
        found[run.index] = NodeTime(run.operator, run.seconds, run.int8, "", *place)
    for index, home in into.items():
        where = "folded" if home is None else facts.nodes[home].name
        host = None if home is None else found.get(home)
        found[index] = NodeTime(
            "" if host is None else host.operator, 0.0, host is not None and host.int8, where, 0.0, 0.0, ""
        )
    return dict(sorted(found.items()))


def _place(roof: Roof | None, work: int, moved: int, run: OperatorRun) -> tuple[float, float, str]:
    if roof is None or not work or run.seconds <= 0:
        return work / moved, 0.0, ""
    intensity = work / moved
    top = roof.attainable(intensity, int8=run.int8)
    bound = "memory" if intensity * roof.bandwidth <= top else "arithmetic"
    return intensity, work / run.seconds / top, bound


def _edges(facts: GraphFacts, group: list[Any]) -> int:
    """Bytes that a fused group reads from outside and gives to outside."""
    inner = {name for node in group for name in node.gives}
    outside = {name for node in facts.nodes if node not in group for name in node.reads} | set(facts.outputs)
    reads = {name for node in group for name in node.reads if name not in inner}
    names = reads | (inner & outside)
    return sum(
        facts.tensors[name].size
        for name in names
        if name in facts.tensors and not facts.tensors[name].constant
    )


def _shape(facts: GraphFacts, name: str) -> JSON:
    item = facts.tensors.get(name)
    return None if item is None or item.shape is None else list(item.shape)
