"""Fills the report's page from the store: the release, its evidence, its traffic."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modelyard.core.clock import SYSTEM_CLOCK, Clock, iso
from modelyard.core.errors import MonitorError
from modelyard.core.files import write_atomic
from modelyard.data.profile import Profile
from modelyard.lifecycle.lineage import subjects_of
from modelyard.lifecycle.loop import STEPS, stored_record
from modelyard.lifecycle.project import Project
from modelyard.lifecycle.scoring import score_of, scored_release
from modelyard.lifecycle.step import StepRecord
from modelyard.lifecycle.traffic import Traffic, judge, read_traffic
from modelyard.measure.measurement import Verdict
from modelyard.monitor.drift import window_profile
from modelyard.monitor.report import render_report
from modelyard.monitor.report_data import ReportData, ScoreRow
from modelyard.monitor.rows import inputs
from modelyard.release.registry import Release
from modelyard.score.score import Score
from modelyard.store.store import Store

_TAIL = 25
"""Ledger entries at the end of the page."""


def write_report_page(
    project: Project, store: Store, path: Path | None = None, *, clock: Clock = SYSTEM_CLOCK
) -> Path:
    """Writes the page, by default into the store's folder, and returns where it is."""
    path = path or project.store_root / "report.html"
    write_atomic(path, render_report(report_data(project, store, clock=clock)).encode())
    return path


def report_data(project: Project, store: Store, *, clock: Clock = SYSTEM_CLOCK) -> ReportData:
    """All that the page shows; what is not there yet is left empty, and the page says so."""
    release, scored = scored_release(project, store), score_of(project, store, clock=clock)
    subjects = _subjects(project, release)
    verdicts = [
        (entry.claim, Verdict.from_json(entry.body))
        for entry in store.ledger.entries()
        if entry.subject in subjects and "measurements" in entry.body
    ]
    newest = dict(verdicts)
    steps = _records(project, store)
    return ReportData(
        project=project.name,
        generated=iso(clock.now()),
        task=project.task,
        endpoint=project.endpoint_name,
        facts=_facts(steps),
        requirements=tuple(item for claim, item in newest.items() if claim.startswith("requirement.")),
        quality=tuple(item for claim, verdict in newest.items() if claim == "quality"
                      for item in verdict.measurements),
        slices=tuple(newest[claim] for claim in ("model.6", "model.7") if claim in newest),
        compression=tuple(item for claim, item in newest.items() if claim.startswith("compress.")),
        canary=tuple(newest[claim] for claim in ("infra.6", "infra.7") if claim in newest),
        entries=tuple(store.ledger.entries(newest_first=True, limit=_TAIL)),
        latency_bound=_latency_bound(project),
        **_score(scored),
        **_release(release),
        **_traffic(project, store, clock),
    )  # fmt: skip


def _subjects(project: Project, release: Release | None) -> frozenset[str]:
    if release is None:
        return frozenset({f"project:{project.name}"})
    return subjects_of(release.lineage, release=release.digest, endpoint=project.endpoint_name)


def _records(project: Project, store: Store) -> dict[str, StepRecord]:
    done: dict[str, StepRecord] = {}
    for step in STEPS:
        record = stored_record(project, store, step.name)
        if record is not None:
            done[step.name] = record
    return done


def _facts(steps: Mapping[str, StepRecord]) -> tuple[tuple[str, str], ...]:
    return tuple((name, record.headline) for name, record in steps.items())


def _latency_bound(project: Project) -> float | None:
    return next((item.bound for item in project.requirements if item.metric == "latency_p99"), None)


def _score(found: Score) -> dict[str, Any]:
    lines = tuple(
        ScoreRow(
            test=line.test,
            section=line.section,
            title=line.title,
            points=line.points,
            evidence=f"entry {line.entry}: {line.why}" if line.entry is not None else "",
            missing=line.missing,
            command=line.command,
        )
        for line in found.lines
    )
    return {"score": found.total, "band": found.band, "sections": found.sections, "lines": lines}


def _release(release: Release | None) -> dict[str, Any]:
    if release is None:
        return {}
    return {
        "release": release.name,
        "version": str(release.version),
        "digest": release.digest,
        "created": release.created,
    }


def _traffic(project: Project, store: Store, clock: Clock) -> dict[str, Any]:
    try:
        traffic = read_traffic(project, store)
    except MonitorError:
        return {}
    if not traffic.log.num_rows:
        return {"reference": traffic.release.profile}
    report = judge(project, traffic, now=clock.now())
    return {
        "windows": (report,),
        "reference": traffic.release.profile,
        "window": _profile(traffic),
        "latencies": tuple(traffic.log["latency"].to_pylist()),
    }


def _profile(traffic: Traffic) -> Profile:
    contract = traffic.release.contract
    features, _ = inputs(traffic.log, contract)
    return window_profile(traffic.log, features, contract)
