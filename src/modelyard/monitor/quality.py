"""Quality in production, from feedback joined to predictions by id."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from modelyard.measure.measurement import Measurement
from modelyard.measure.metric import METRICS
from modelyard.measure.quality import quality
from modelyard.measure.requirement import Requirement
from modelyard.monitor.binomial import above
from modelyard.monitor.options import MonitorOptions
from modelyard.monitor.suspicion import Suspicion
from modelyard.monitor.window_report import Unjudged

if TYPE_CHECKING:
    import pyarrow as pa

    from modelyard.data.contract import Contract


@dataclass(frozen=True, slots=True)
class Labelled:
    """Predictions whose truth is known: `truth` [N], `answer` [N, K] probabilities or [N] values.

    `unknown` counts feedback without a prediction, `unusable` that with a label the contract does not know
    or an answer that is no number.
    """

    truth: npt.NDArray[Any]
    answer: npt.NDArray[Any]
    unknown: int
    unusable: int


def join_feedback(log: pa.Table, feedback: pa.Table | None, contract: Contract) -> Labelled:
    """Joins feedback to answered predictions by id; of several for one id the last counts."""
    import pyarrow.compute as pc

    classes = contract.labels
    wanted = "label" if classes else "value"
    answers = "probabilities" if classes else "prediction"
    if feedback is None or wanted not in feedback.column_names or answers not in log.column_names:
        empty = np.empty((0, len(classes))) if classes else np.empty(0)
        return Labelled(np.empty(0, dtype=np.int64 if classes else np.float64), empty, 0, 0)
    answered = log.filter(pc.equal(log["outcome"], "ok"))
    newest = dict(zip(feedback["id"].to_pylist(), range(feedback.num_rows), strict=True))
    feedback = feedback.take(np.fromiter(newest.values(), dtype=np.int64, count=len(newest)))
    rows = pc.index_in(feedback["id"], value_set=answered["id"].combine_chunks())
    known = np.asarray(pc.is_valid(rows))
    found = answered.take(rows.drop_null())
    given = feedback[wanted].filter(known)
    if classes:
        truth = _indices(given.to_pylist(), classes)
        answer = _matrix(found[answers].to_pylist(), len(classes))
        usable = (truth >= 0) & np.isfinite(answer).all(axis=1)
    else:
        truth = given.to_numpy().astype(np.float64)
        answer = found[answers].to_numpy().astype(np.float64)
        usable = np.isfinite(truth) & np.isfinite(answer)
    return Labelled(
        truth[usable], answer[usable], int((~known).sum()), int(len(usable) - np.count_nonzero(usable))
    )


def _indices(labels: list[Any], classes: tuple[str, ...]) -> npt.NDArray[np.int64]:
    places = {name: index for index, name in enumerate(classes)}
    return np.array([places.get(str(label), -1) for label in labels], dtype=np.int64)


def _matrix(rows: list[Any], width: int) -> npt.NDArray[np.float64]:
    blank = [np.nan] * width
    fitting = [row if row is not None and len(row) == width else blank for row in rows]
    return np.array(fitting, dtype=np.float64).reshape(len(rows), width)


def live_quality(
    labelled: Labelled, requirements: Sequence[Requirement], options: MonitorOptions, action: str
) -> tuple[list[Suspicion], list[Unjudged]]:
    """Each required quality metric on labelled traffic; falls only when its interval excludes the bound."""
    suspicions, unjudged = [], []
    rows = len(labelled.truth)
    for item in requirements:
        if item.metric not in METRICS:
            continue
        claim = f"monitor.quality[{item.metric}{', ' + item.slice if item.slice else ''}]"
        if item.slice:
            unjudged.append(Unjudged(claim, "slices are judged on the held-out rows, not on live traffic"))
        elif rows < options.min_feedback:
            why = f"too few labelled rows to judge: {rows:,} of {options.min_feedback:,}"
            unjudged.append(Unjudged(claim, why))
        else:
            measured = quality(
                item.metric, labelled.truth, labelled.answer, confidence=options.confidence,
                seed=options.seed, of="feedback",
            )  # fmt: skip
            if not np.isfinite(measured.value):
                unjudged.append(Unjudged(claim, f"cannot be measured: {measured.method}"))
            else:
                suspicions.append(_suspicion(claim, item, measured, labelled, action))
    return suspicions, unjudged


def _suspicion(
    claim: str, requirement: Requirement, measured: Measurement, labelled: Labelled, action: str
) -> Suspicion:
    lower_is_bad = requirement.direction == "at_least"
    broken = measured.value < requirement.bound if lower_is_bad else measured.value > requirement.bound
    sign = "at least" if lower_is_bad else "at most"
    span = (
        f" [{measured.low:.4g}, {measured.high:.4g}]"
        if measured.low is not None and measured.high is not None
        else ""
    )
    finding = (
        f"{requirement.metric} on {measured.n:,} labelled rows is {measured.value:.4g}{span}, "
        f"required {sign} {requirement.bound:.4g}"
    )
    return Suspicion(
        claim=claim,
        kind="quality",
        subject=requirement.metric,
        p_value=_p_value(requirement, measured),
        relevant=broken,
        finding=finding,
        action=action,
        effect=abs(measured.value - requirement.bound),
        measurements=(measured,),
        bound=requirement.bound,
        details={"unknown_ids": labelled.unknown, "unusable": labelled.unusable},
    )


def _p_value(requirement: Requirement, measured: Measurement) -> float:
    """Of "the requirement is kept": exact for counts, else normal with the interval's width on that side."""
    from scipy import stats

    at_least = requirement.direction == "at_least"
    if measured.method.startswith("clopper") and measured.metric == "accuracy":
        wrong = measured.n - round(measured.value * measured.n)
        if at_least:
            return above(wrong, measured.n, min(max(1.0 - requirement.bound, 0.0), 1.0))
        return above(measured.n - wrong, measured.n, min(max(requirement.bound, 0.0), 1.0))
    gap = requirement.bound - measured.value if at_least else measured.value - requirement.bound
    edge = measured.high if at_least else measured.low
    if edge is None:
        return 1.0
    width = abs(edge - measured.value) / float(stats.norm.ppf((1.0 + measured.confidence) / 2.0))
    if width == 0.0:
        return 0.0 if gap > 0 else 1.0
    return float(stats.norm.sf(gap / width))
