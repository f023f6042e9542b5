"""The candidate in the real server: canary on replayed held-out traffic, promotion, and the rollback drill."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from modelyard.core.clock import from_iso
from modelyard.core.progress import Progress
from modelyard.data.tensors import take
from modelyard.lifecycle.arms import count_arm, offline_arm
from modelyard.lifecycle.champion import champion_digest
from modelyard.lifecycle.client import Answered, Client, replay
from modelyard.lifecycle.drill_rollback import drill_rollback
from modelyard.lifecycle.loop import Context
from modelyard.lifecycle.parts import Part, contract_of, model_of, part_of
from modelyard.lifecycle.rows import plain_rows
from modelyard.lifecycle.service import ensure_service, wait_for_generation
from modelyard.lifecycle.step import Outcome
from modelyard.measure.measurement import Verdict
from modelyard.model.predict import predict
from modelyard.model.runtimes import RUNTIMES
from modelyard.release.canary import CanaryOptions, Decision, Trial, judge_canary
from modelyard.release.endpoint import Endpoints, EndpointState
from modelyard.release.policy import Canary, Single

_LOOKS = 10


def run(context: Context, progress: Progress) -> Outcome:
    project, release = context.project, context.values("release")["release"]
    name, endpoints = project.endpoint_name, Endpoints(context.store)
    champion = champion_digest(context)
    drilled = drill_rollback(context)
    progress(0.3, "starting the service")
    state = _begin(context, endpoints, champion, release)
    running = ensure_service(project)
    wait_for_generation(running.url, name, state.generation)
    test = _limited(context, part_of(context, "test"))
    expected = _expected(context, test)
    began = from_iso(state.since)
    decision, answered = _canary(context, Client(running.url), test, expected, champion, began, progress)
    state = _conclude(context, endpoints, champion, decision)
    _feedback(context, Client(running.url), test, answered)
    wait_for_generation(running.url, name, state.generation)
    verdict = Verdict(
        "infra.6",
        decision.action == "promote",
        decision.verdict.why,
        decision.verdict.measurements,
        details={"requests": len(answered), "action": decision.action, **decision.verdict.details},
    )
    values: dict[str, Any] = {
        "endpoint": name,
        "generation": state.generation,
        "action": decision.action,
        "canary": decision.verdict.to_json(),
        "drill": drilled.to_json(),
        "began": began,
    }
    against = "its own answers in training" if champion in (None, release) else "the champion"
    headline = f"{decision.action} after {len(answered)} requests against {against} · {drilled.why}"
    stops = "" if decision.action == "promote" else f"the canary: {decision.verdict.why}"
    return Outcome(values, headline, ((release, verdict), (f"endpoint:{name}", drilled)), stops)


def _begin(context: Context, endpoints: Endpoints, champion: str | None, release: str) -> EndpointState:
    """Puts the candidate before traffic: beside the champion, or alone where nobody serves yet."""
    name = context.project.endpoint_name
    if champion in (None, release):
        policy: Single | Canary = Single(release)
    else:
        policy = Canary(champion, release, context.project.canary.fraction, salt=release[-8:])  # type: ignore[arg-type]
    return endpoints.set(name, policy, why="canary on replayed held-out traffic", by=context.command)


def _limited(context: Context, part: Part) -> Part:
    rows = min(len(part.targets), context.project.canary.requests)
    return Part(part.table.slice(0, rows), take(part.tensors, slice(0, rows)), part.targets[:rows])


def _expected(context: Context, test: Part) -> npt.NDArray[Any]:
    session = RUNTIMES.get("onnxruntime").load(model_of(context, "compress"))
    try:
        return predict(session, test.tensors)
    finally:
        session.close()


def _canary(
    context: Context,
    client: Client,
    test: Part,
    expected: npt.NDArray[Any],
    champion: str | None,
    began: float,
    progress: Progress,
) -> tuple[Decision, list[Answered]]:
    project, release = context.project, context.values("release")["release"]
    options = _options(context)
    rows = plain_rows(test.tensors, contract_of(context), range(len(test.targets)))
    keys = [f"canary-{release[-8:]}-{number}" for number in range(len(rows))]
    answered: list[Answered] = []
    decision: Decision | None = None
    for look in np.array_split(np.arange(len(rows)), min(_LOOKS, len(rows))):
        asked = [(int(index), rows[index], keys[index]) for index in look]
        answered += replay(client, project.endpoint_name, asked)
        progress(0.35 + 0.6 * len(answered) / len(rows), f"canary: {len(answered)} requests")
        candidate = count_arm(answered, release, test.targets, expected, model_of(context, "compress").labels)
        if champion in (None, release):
            other = offline_arm(test.targets[: len(answered)], expected[: len(answered)])
        else:
            other = count_arm(answered, champion, test.targets, None, model_of(context, "compress").labels)
        trial = Trial(
            project.endpoint_name, champion or release, release, elapsed=context.clock.now() - began
        )
        decision = judge_canary(trial, other, candidate, options)
        if decision.action == "rollback":
            break
    if decision is None:
        raise ValueError("the test part is empty")
    context.store.ledger.append_verdict(release, decision.verdict, by=context.command)
    return decision, answered


def _options(context: Context) -> CanaryOptions:
    options = context.project.canary
    needed: Sequence[str] = ("errors", "quality") if context.project.task == "classification" else ("errors",)
    return CanaryOptions(
        error_margin=options.error_margin, quality_margin=options.margin, needed=tuple(needed)
    )


def _conclude(
    context: Context, endpoints: Endpoints, champion: str | None, decision: Decision
) -> EndpointState:
    name, release = context.project.endpoint_name, context.values("release")["release"]
    if champion in (None, release):
        return endpoints.show(name)
    if decision.action == "promote":
        return endpoints.promote(name, by=context.command, why=decision.verdict.why)
    if decision.action == "rollback":
        return endpoints.rollback(name, by=context.command, why=decision.verdict.why)
    return endpoints.show(name)


def _feedback(context: Context, client: Client, test: Part, answered: Sequence[Answered]) -> None:
    """The held-out labels, by prediction id: what a client would report once the truth is known."""
    labels = contract_of(context).labels
    items = []
    for item in answered:
        if item.ok:
            truth = test.targets[item.row]
            said = {"label": labels[int(truth)]} if labels else {"value": float(truth)}
            items.append({"id": item.body["predictions"][0]["id"], **said})
    for start in range(0, len(items), 500):
        client.feedback(context.project.endpoint_name, items[start : start + 500])
