"""Judges the canary that runs on live traffic, from the prediction log and the feedback."""

from __future__ import annotations

from typing import Any

from modelyard.core.clock import SYSTEM_CLOCK, Clock, from_iso
from modelyard.core.errors import ReleaseError
from modelyard.lifecycle.project import Project
from modelyard.release.canary import Arm, CanaryOptions, Decision, Trial, judge_canary
from modelyard.release.endpoint import Endpoints
from modelyard.release.policy import Canary
from modelyard.serve.reading import read_feedback, read_predictions
from modelyard.store.store import Store


def judge_live(project: Project, store: Store, *, by: str, clock: Clock = SYSTEM_CLOCK) -> Decision | None:
    """Judges and carries out; nothing when no canary runs. Safe to call however often.

    Quality needs labels: a classification's by feedback. Without them the trial goes on until its timeout,
    and is rolled back then: what nobody has shown is not promoted.
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
    truth = _truth(feedback)
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


def _truth(feedback: Any) -> dict[str, str]:
    if "label" not in feedback.column_names:
        return {}
    labels = feedback.column("label").to_pylist()
    ids = feedback.column("id").to_pylist()
    return {key: label for key, label in zip(ids, labels, strict=True) if label is not None}


def _arm(log: Any, release: str, truth: dict[str, str], slow: float | None) -> Arm:
    if not log.num_rows:
        return Arm()
    import pyarrow.compute as pc

    rows = log.filter(pc.and_(pc.equal(log["release"], release), pc.equal(log["arm"], "primary")))
    failed = pc.sum(pc.equal(rows["outcome"], "failed")).as_py() or 0
    beyond = 0 if slow is None else pc.sum(pc.greater(rows["latency"], slow)).as_py() or 0
    said = rows["label"].to_pylist() if "label" in rows.column_names else []
    known = [
        (label, truth[key]) for key, label in zip(rows["id"].to_pylist(), said, strict=False) if key in truth
    ]
    return Arm(
        requests=rows.num_rows,
        errors=int(failed),
        timed=rows.num_rows if slow is not None else 0,
        slow=int(beyond),
        labelled=len(known),
        misses=sum(label != right for label, right in known),
    )
