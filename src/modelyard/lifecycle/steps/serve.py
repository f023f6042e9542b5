"""The candidate in the real server: canary on replayed held-out traffic, promotion, the rollback drill."""

from __future__ import annotations

from typing import Any, cast

from modelyard.core.clock import from_iso
from modelyard.core.progress import Progress, part
from modelyard.lifecycle.champion import champion_digest
from modelyard.lifecycle.drill_rollback import drill_rollback
from modelyard.lifecycle.loop import Context
from modelyard.lifecycle.replay import Replay, replay_of
from modelyard.lifecycle.service import service_client, wait_for_generation
from modelyard.lifecycle.step import Outcome
from modelyard.measure.measurement import Verdict
from modelyard.release.canary import Decision
from modelyard.release.endpoint import Endpoints
from modelyard.release.endpoint_law import EndpointState
from modelyard.release.policy import Canary, Policy, Single


def parts(context: Context) -> dict[str, str]:
    """The endpoint's name; where it listens changes nothing about the evidence."""
    return {"[endpoint] name": context.project.endpoint_name}


def run(context: Context, progress: Progress) -> Outcome:
    name, release = context.project.endpoint_name, context.values("release")["release"]
    endpoints, champion = Endpoints(context.store), champion_digest(context)
    progress(0.0, "rollback drill")
    drilled = drill_rollback(context)
    progress(0.3, "starting the service")
    state = _begin(context, endpoints, champion, release)
    with service_client(context.project) as client:
        wait_for_generation(client, name, state.generation)
        replayed = replay_of(context, release, champion, from_iso(state.since))
        decision, answered = replayed.conduct(client, part(progress, 0.35, 0.95))
        context.store.ledger.append_verdict(release, decision.verdict, by=context.command)
        asked = len(answered)
        state = _conclude(context, endpoints, replayed, decision)
        wait_for_generation(client, name, state.generation)
        if decision.action == "promote" and not replayed.first:
            answered += replayed.rest(client, answered)
        replayed.feedback(client, answered)
    canaried = Verdict(
        "infra.6",
        decision.action == "promote",
        decision.verdict.why,
        decision.verdict.measurements,
        details={"requests": asked, "action": decision.action, **decision.verdict.details},
    )
    values: dict[str, Any] = {
        "endpoint": name,
        "generation": state.generation,
        "action": decision.action,
        "canary": decision.verdict.to_json(),
        "drill": drilled.to_json(),
        "began": replayed.began,
        "tolerance": replayed.truth.tolerance,
        "requests": sum(item.ok for item in answered),
    }
    against = "its answers in training" if replayed.first else "the champion"
    headline = f"canary: {decision.action} after {asked} requests against {against} · {drilled.why}"
    stops = "" if decision.action == "promote" else f"the canary: {decision.verdict.why}"
    if decision.action == "continue":
        stops += "; raise [canary] requests, or let live traffic decide: modelyard monitor --watch"
    return Outcome(values, headline, ((release, canaried), (f"endpoint:{name}", drilled)), stops)


def _begin(context: Context, endpoints: Endpoints, champion: str | None, release: str) -> EndpointState:
    """Puts the candidate before traffic: beside the champion, or alone where nobody serves yet."""
    name, policy = context.project.endpoint_name, cast("Policy", Single(release))
    if champion is not None and champion != release:
        policy = Canary(champion, release, context.project.canary.fraction, salt=release[-8:])
        if not isinstance(endpoints.show(name).policy, Single):
            # A trial that was interrupted is over: its counts are lost, and it may have asked to roll back.
            endpoints.rollback(name, why="the trial was interrupted", by=context.command)
    return endpoints.set(name, policy, why="canary on replayed held-out traffic", by=context.command)


def _conclude(context: Context, endpoints: Endpoints, replayed: Replay, decision: Decision) -> EndpointState:
    """Carries out what the judge decided. A trial that is not decided yet goes on in live traffic."""
    name, why = context.project.endpoint_name, decision.verdict.why
    if replayed.first or decision.action == "continue":
        return endpoints.show(name)
    if decision.action == "promote":
        return endpoints.promote(name, by=context.command, why=why)
    return endpoints.rollback(name, by=context.command, why=why)
