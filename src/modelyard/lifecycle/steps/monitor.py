"""Judge the live predictions against the release's own profile, and prove each alarm with a planted fault."""

from __future__ import annotations

from typing import Any

from modelyard.core.digest import canonical
from modelyard.core.errors import ModelyardError
from modelyard.core.progress import Progress
from modelyard.lifecycle.debugging import debug_row
from modelyard.lifecycle.loop import Context
from modelyard.lifecycle.parts import part_of
from modelyard.lifecycle.replay import ONCE, REST
from modelyard.lifecycle.step import Outcome
from modelyard.lifecycle.traffic import (
    Traffic,
    begin_watch,
    judge,
    monitor_options,
    read_traffic,
    wait_for_rows,
)
from modelyard.measure.measurement import Verdict
from modelyard.score.context import CheckContext
from modelyard.score.drills.catalogue import DRILLS


def run(context: Context, progress: Progress) -> Outcome:
    project, served = context.project, context.values("serve")
    name = project.endpoint_name
    wait_for_rows(project, served["began"], served["requests"])
    traffic = read_traffic(project, context.store, since=served["began"])
    now = context.clock.now()
    report = judge(project, traffic, now=now)
    begin_watch(project, context.store, traffic, report)
    verdicts = [report.to_verdict()]
    verdicts += [alarm_verdict(alarm.kind, alarm.verdict) for alarm in report.alarms]
    for number, drill in enumerate(DRILLS.names()):
        progress(number / len(DRILLS.names()), f"drill {drill}")
        verdicts.append(DRILLS.get(drill).run(_facts(context, traffic, now)))
    progress(0.95, "one prediction, step by step")
    verdicts.append(_debugged(context, traffic))
    drills = [verdict for verdict in verdicts if verdict.claim.startswith("drill.")]
    values: dict[str, Any] = {
        "window": context.store.objects.put(canonical(report.to_json())),
        "alarms": [alarm.to_json() for alarm in report.alarms],
        "drills": {verdict.claim: verdict.passed for verdict in drills},
    }
    passed = sum(verdict.passed for verdict in drills)
    heard = ", ".join(alarm.kind for alarm in report.alarms) or "quiet"
    judged = (
        f"{report.rows:,} live rows · {heard}" if report.judged else f"{report.rows:,} live rows, too few"
    )
    headline = f"{judged} · {passed} of {len(drills)} drills fired as planted and stayed quiet otherwise"
    return Outcome(values, headline, tuple((f"endpoint:{name}", verdict) for verdict in verdicts))


def alarm_verdict(kind: str, verdict: Verdict) -> Verdict:
    """An alarm as the ledger keeps it."""
    return Verdict(
        f"alarm.{kind}", False, verdict.why, verdict.measurements, verdict.bound, {"claim": verdict.claim}
    )


def _debugged(context: Context, traffic: Traffic) -> Verdict:
    """Takes the first logged prediction apart, as `modelyard debug` does."""
    if not traffic.log.num_rows:
        return Verdict("infra.5", False, "no prediction was logged that could be replayed")
    training = part_of(context, "train").table
    try:
        found = debug_row(
            traffic.log, traffic.log["id"][0].as_py(), traffic.release, training, traffic.release.contract
        )
    except ModelyardError as error:
        return Verdict("infra.5", False, str(error))
    return found.to_verdict()


def _offline(context: Context, traffic: Traffic) -> Any:
    """The features of the replayed rows as the snapshot holds them, under the ids that the log gave them."""
    import pyarrow as pa

    part = part_of(context, "test").table
    mine = context.values("release")["release"][-8:]
    ids = {f"{first}-{mine}-{row}": row for first in (ONCE, REST) for row in range(part.num_rows)}
    asked = [name for name in traffic.log["id"].to_pylist() if name in ids]
    features = part.select([column.name for column in traffic.release.contract.features])
    return features.take(pa.array([ids[name] for name in asked])).append_column("id", pa.array(asked))


def _facts(context: Context, traffic: Traffic, now: float) -> CheckContext:
    project = context.project
    return CheckContext(
        contract=traffic.release.contract,
        labels=traffic.release.model.labels,
        metric=project.train.metric,
        requirements=project.requirements,
        log=traffic.log,
        offline=_offline(context, traffic),
        feedback=traffic.feedback,
        reference=traffic.release.profile,
        options=monitor_options(project),
        endpoint=project.endpoint_name,
        released=traffic.released,
        now=now,
        seed=project.train.seed,
    )
