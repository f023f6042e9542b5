"""`PredictionRecord`: what was asked, what was answered, by which release, how long it took.

On disk a record is one row of `<state>/predictions/<endpoint>/<segment>.parquet` (or `.journal`, see `log`):

    id            string                 the item: the request's id, or `<request>.<i>` of several items
    time          timestamp[us, UTC]     when the request was complete
    endpoint      string
    release       string                 digest of the release that answered
    version       string                 its version
    arm           string                 primary | shadow
    outcome       string                 ok | rejected | failed
    latency       float64                seconds from the complete request to the answer
    breaches      list<string>           "column: rule" for each promise of the contract that the item broke
    in_<feature>  as in the contract     the inputs (columns classed personal or sensitive are left out)
    label         string                 classification: the most probable label
    confidence    float64                classification: its probability
    probabilities list<float>            classification: in the order of the release's labels
    prediction    float64                regression
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

import msgspec
import numpy as np

from modelyard.core.digest import Digest
from modelyard.core.spec import Tensors

if TYPE_CHECKING:
    from modelyard.data.contract import Contract

Seconds: TypeAlias = "np.ndarray[Any, np.dtype[np.float64]]"
Arm: TypeAlias = Literal["primary", "shadow"]
Outcome: TypeAlias = Literal["ok", "rejected", "failed"]


class ReleaseFacts(Protocol):
    """What the log needs to know of the release that answered."""

    @property
    def digest(self) -> Digest: ...

    @property
    def version(self) -> str: ...

    @property
    def labels(self) -> tuple[str, ...]: ...

    @property
    def contract(self) -> Contract: ...


FORMAT = 1
"""Version of the rows, in each segment's metadata; raise it when a column changes its meaning."""


class PredictionRecord(msgspec.Struct, gc=False):
    """Requests that were answered together, as the log takes them: arrays and release by reference.

    `ids`, `rows` and `started` have one entry a request; the arrays hold the items of all of them, in
    order. Rejected requests have no inputs, and only answered ones have outputs. `ended` and `started` are
    the clock's `monotonic`, `time` is its `now` at `ended`.
    """

    by: ReleaseFacts
    endpoint: str
    arm: Arm
    outcome: Outcome
    ids: list[str]
    rows: list[int]
    started: list[float]
    ended: float
    time: float
    items: int
    inputs: Tensors
    outputs: Tensors
    began: float = 0.0
    """When the run began (`monotonic`); 0 where there was none."""

    @property
    def size(self) -> int:
        """Bytes that the record keeps in memory, about."""
        size = 256 + 192 * len(self.ids)
        for values in self.inputs.values():
            size += values.nbytes if values.dtype != object else 64 * values.size
        for values in self.outputs.values():
            size += values.nbytes
        return size


def seconds_of(records: Sequence[PredictionRecord], *, waiting: bool = False) -> Seconds:
    """Seconds of each request, from the moment it was complete to its answer, or (`waiting`) to its run."""
    each = [len(record.started) for record in records]
    until = [record.began if waiting else record.ended for record in records]
    seconds: Seconds = np.repeat(np.array(until), each)
    seconds -= np.fromiter(
        chain.from_iterable(record.started for record in records), np.float64, len(seconds)
    )
    return seconds
