"""One prediction taken apart: the answer again, every node's value, what it hangs on, rows like it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from modelyard.core.errors import MonitorError
from modelyard.core.spec import Tensors
from modelyard.data.contract import Contract
from modelyard.data.tensors import features, take
from modelyard.lifecycle.neighbours import Neighbour, nearest
from modelyard.lifecycle.occlusion import Effect, occlude
from modelyard.measure.measurement import Verdict
from modelyard.model.answer import answer
from modelyard.model.trace import intermediate
from modelyard.release.load import LoadedRelease

_TOLERANCE = 1e-3


@dataclass(frozen=True, slots=True)
class NodeValue:
    """What one node of the graph gave: its output's name, shape, and range (empty for texts)."""

    name: str
    shape: tuple[int, ...]
    low: float | None
    mean: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class Debugged:
    """A prediction replayed. `then` and `now` are the main outputs; `effects` are strongest first."""

    id: str
    time: str
    release: str
    latency: float
    breaches: tuple[str, ...]
    then: tuple[float, ...]
    now: tuple[float, ...]
    nodes: tuple[NodeValue, ...]
    effects: tuple[Effect, ...]
    neighbours: tuple[Neighbour, ...]

    @property
    def difference(self) -> float:
        """The largest difference between the logged answer and the replayed one."""
        return float(np.max(np.abs(np.array(self.then) - np.array(self.now))))

    def to_verdict(self) -> Verdict:
        """The evidence for infra.5: the model can be debugged by stepping through one example."""
        same = self.difference <= _TOLERANCE
        strongest = f", strongest: {self.effects[0].what}" if self.effects else ""
        why = (
            f"prediction {self.id} replayed {'alike' if same else 'differently'} (difference "
            f"{self.difference:.2g}): {len(self.nodes)} node values, {len(self.effects)} effects{strongest}, "
            f"{len(self.neighbours)} nearest training rows"
        )
        return Verdict("infra.5", same and bool(self.nodes), why, details={"id": self.id})


def debug_row(log: Any, id: str, release: LoadedRelease, training: Any, contract: Contract) -> Debugged:
    """Takes the logged prediction of that id apart; `training` is the table that the model learnt from.

    Raises `MonitorError` when the id is not in the log or its inputs were not logged.
    """
    row, tensors = _logged(log, id, contract)
    model = release.model
    now = answer(model, tensors, release.info.runtime)[0]
    return Debugged(
        id=id,
        time=str(row["time"]),
        release=f"{release.info.name} {release.info.version}",
        latency=float(row["latency"]),
        breaches=tuple(row["breaches"] or ()),
        then=tuple(row["probabilities"] if model.labels else [row["prediction"]]),
        now=tuple(float(value) for value in now),
        nodes=tuple(_node(name, value) for name, value in intermediate(model, tensors).items()),
        effects=tuple(occlude(model, tensors, features(training, contract))),
        neighbours=tuple(nearest(tensors, training, contract)),
    )


def _logged(log: Any, id: str, contract: Contract) -> tuple[dict[str, Any], Tensors]:
    import pyarrow.compute as pc

    found = log.filter(pc.equal(log["id"], id)) if log.num_rows else log
    if not found.num_rows:
        raise MonitorError(
            "no prediction with this id is in the log",
            value=id,
            rule="an id that the service gave, of the release that serves now",
            fix="the newest ids: modelyard debug --last 5",
        )
    absent = [item.name for item in contract.features if f"in_{item.name}" not in found.column_names]
    if absent:
        raise MonitorError(
            "the inputs of this prediction were not logged",
            value=absent,
            rule="columns classed personal or sensitive are left out of the log",
            fix="replay it from the source instead",
        )
    names = [item.name for item in contract.features]
    table = found.slice(0, 1).select([f"in_{name}" for name in names]).rename_columns(names)
    plain = found.slice(0, 1).drop_columns([f"in_{name}" for name in names])
    return plain.to_pylist()[0], take(features(table, contract), slice(0, 1))


def _node(name: str, value: npt.NDArray[Any]) -> NodeValue:
    if value.dtype.kind not in "fiub" or not value.size:
        return NodeValue(name, value.shape, None, None, None)
    numbers = value.astype(np.float64)
    return NodeValue(name, value.shape, float(numbers.min()), float(numbers.mean()), float(numbers.max()))
