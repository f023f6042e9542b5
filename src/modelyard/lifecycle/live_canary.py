"""Judges the canary that runs on live traffic, from the prediction log and the feedback."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from modelyard.core.clock import SYSTEM_CLOCK, Clock, from_iso
from modelyard.core.errors import ReleaseError
from modelyard.lifecycle.loop import stored_record
from modelyard.lifecycle.project import Project
from modelyard.release.canary import Arm, CanaryOptions, Decision, Trial, judge_canary
from modelyard.release.endpoint import Endpoints
from modelyard.release.policy import Canary
from modelyard.serve.reading import read_feedback, read_predictions
from modelyard.store.store import Store


def judge_live(project: Project, store: Store, *, by: str, clock: Clock = SYSTEM_CLOCK) -> Decision | None:
    """Judges and carries out; nothing when no canary runs. Safe to call however often.

    Quality needs the truth by feedback: a label, or a value, of which an answer misses when it is further
    off than the tolerance that the replay fixed. Without it the trial goes on until its timeout, and is
    rolled back then: what nobody has shown is not promoted.
    """
    endpoints, name = Endpoints(store), project.endpoint_name
    if name not in endpoints.names():
        return None
    state = endpoints.show(name)
    if not isinstance(state.policy, Canary):
        return None
    began = from_iso(state.since)
    log = read_predictions(project.state, name, since=began)
    feedback = read_feedback(project.state, name)
    champion, candidate = state.policy.champion, state.policy.candidate
    trial = Trial(name, champion, candidate, clock.now() - began)
    slow = next((item.bound for item in project.requirements if item.metric == "latency_p99"), None)
    options = CanaryOptions(
        error_margin=project.canary.error_margin,
        quality_margin=project.canary.margin,
        needed=("errors", "quality") if slow is None else ("errors", "latency", "quality"),
    )
    truth = Truths(_truth(feedback), _tolerance(project, store))
    decision = judge_canary(
        trial, _arm(log, champion, truth, slow), _arm(log, candidate, truth, slow), options
    )
    if decision.action == "continue":
        return decision
    store.ledger.append_verdict(candidate, decision.verdict, by=by)
    try:
        if decision.action == "promote":
            endpoints.promote(name, by=by, why=decision.verdict.why, expected=state.generation)
        else:
            endpoints.rollback(name, by=by, why=decision.verdict.why, expected=state.generation)
    except ReleaseError:
        # Somebody changed the endpoint meanwhile: their change stands, the next look judges anew.
        return decision
    return decision


@dataclass(frozen=True, slots=True)
class Truths:
    """What turned out to be right, by prediction id: labels as text, or values with their tolerance."""

    by_id: Mapping[str, Any]
    tolerance: float

    def missed(self, key: str, answer: Any) -> bool:
        """Whether an answer was wrong; a value may be off by the tolerance."""
        right = self.by_id[key]
        return bool(answer != right if isinstance(right, str) else abs(answer - right) > self.tolerance)


def _truth(feedback: Any) -> dict[str, Any]:
    ids = feedback.column("id").to_pylist()
    found: dict[str, Any] = {}
    for name in ("label", "value"):
        if name in feedback.column_names:
            said = feedback.column(name).to_pylist()
            found |= {key: value for key, value in zip(ids, said, strict=True) if value is not None}
    return found


def _tolerance(project: Project, store: Store) -> float:
    """The error that the last replay tolerated: a quantile of the errors in validation."""
    record = stored_record(project, store, "serve")
    return float(record.values.get("tolerance", 0.0)) if record is not None else 0.0


def _arm(log: Any, release: str, truth: Truths, slow: float | None) -> Arm:
    if not log.num_rows:
        return Arm()
    import pyarrow.compute as pc

    rows = log.filter(pc.and_(pc.equal(log["release"], release), pc.equal(log["arm"], "primary")))
    failed = pc.sum(pc.equal(rows["outcome"], "failed")).as_py() or 0
    beyond = 0 if slow is None else pc.sum(pc.greater(rows["latency"], slow)).as_py() or 0
    column = "label" if "label" in rows.column_names else "prediction"
    said = rows[column].to_pylist() if column in rows.column_names else []
    answers = zip(rows["id"].to_pylist(), said, strict=False)
    known = [(key, answer) for key, answer in answers if key in truth.by_id and answer is not None]
    return Arm(
        requests=rows.num_rows,
        errors=int(failed),
        timed=rows.num_rows if slow is not None else 0,
        slow=int(beyond),
        labelled=len(known),
        misses=sum(truth.missed(key, answer) for key, answer in known),
    )
