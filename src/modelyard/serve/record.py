"""`PredictionRecord`: what was asked, what was answered, by which release, how long it took.

On disk a record is one row of `<state>/predictions/<endpoint>/<segment>.parquet`:

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

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

import msgspec

from modelyard.core.spec import Tensors

if TYPE_CHECKING:
    import pyarrow as pa

Arm: TypeAlias = Literal["primary", "shadow"]
Outcome: TypeAlias = Literal["ok", "rejected", "failed"]

FORMAT = 1
"""Version of the rows, in each segment's metadata; raise it when a column changes its meaning."""


class PredictionRecord(msgspec.Struct, frozen=True, gc=False):
    """One request as the log takes it: all its items together, arrays by reference."""

    id: str
    time: float
    endpoint: str
    release: str
    version: str
    arm: Arm
    outcome: Outcome
    latency: float
    rows: int
    inputs: Tensors
    outputs: Tensors


def read_predictions(
    state: Path,
    endpoint: str,
    *,
    since: datetime | float | None = None,
    until: datetime | float | None = None,
) -> pa.Table:
    """The prediction log of an endpoint as one table in the order of time, `since <= time < until`.

    Segments of releases with different columns are put together by name (missing ones are null). A
    segment that a crash left behind unfinished is not read. No log at all gives a table of no rows.
    """
    raise NotImplementedError


def read_feedback(state: Path, endpoint: str) -> pa.Table:
    """The feedback of an endpoint: `id`, `time`, and `label` (string) or `value` (float64).

    A line that a crash cut short is left out. Of several for one id all are given, in order of arrival.
    """
    raise NotImplementedError
