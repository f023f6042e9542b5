"""What the prediction log holds of the release that serves, ready to be judged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from modelyard.core.clock import from_iso
from modelyard.core.errors import MonitorError
from modelyard.core.poll import until
from modelyard.lifecycle.project import Project
from modelyard.lifecycle.replay import AGAIN
from modelyard.monitor.options import MonitorOptions
from modelyard.monitor.watch import WatchState
from modelyard.monitor.window import judge_window
from modelyard.monitor.window_report import WindowReport
from modelyard.release.endpoint import Endpoints
from modelyard.release.key import trusted_keys
from modelyard.release.load import LoadedRelease, load_release
from modelyard.release.registry import Registry
from modelyard.serve.reading import read_feedback, read_predictions
from modelyard.store.store import Store

WATCH = "watch"
"""The kind of document that says how far a watch has got."""


@dataclass(frozen=True, slots=True)
class Traffic:
    """The serving release with its rows of the prediction log and the feedback on them."""

    release: LoadedRelease
    released: float
    log: Any
    feedback: Any


def monitor_options(project: Project) -> MonitorOptions:
    """The project's monitor section as the monitor takes it."""
    options = project.monitor
    return MonitorOptions(
        false_alarms=options.false_alarms,
        min_rows=min(options.window, 200),
        window_rows=options.window,
        stale_after=options.stale_after,
        detectors=options.detectors,
    )


def serving_release(project: Project, store: Store) -> LoadedRelease:
    """The champion, verified; raises `MonitorError` before the first promotion."""
    endpoints = Endpoints(store)
    if project.endpoint_name not in endpoints.names():
        raise MonitorError(
            "nothing is served yet", value=project.endpoint_name, fix="run the loop first: modelyard run"
        )
    registry = Registry(store, trusted_keys(project.keys))
    return load_release(registry.fetch(registry.by_digest(endpoints.show(project.endpoint_name).champion)))


def read_traffic(project: Project, store: Store, *, since: float | None = None) -> Traffic:
    """The log since a time (all of it without), of the champion's own answers.

    Rows that a canary asked again are left out: the same row twice is not two facts about the traffic.
    """
    release = serving_release(project, store)
    log = read_predictions(project.state, project.endpoint_name, since=since)
    return Traffic(
        release,
        from_iso(release.info.created),
        _kept(log, release.digest),
        read_feedback(project.state, project.endpoint_name),
    )


def watch_key(project: Project, release: LoadedRelease) -> str:
    """Under which key the store keeps how far the watch over a release has got."""
    return f"{project.name}/{release.digest}"


def begin_watch(project: Project, store: Store, traffic: Traffic, report: WindowReport) -> None:
    """Lets the watch go on after a window that was judged: the replayed rows are not live traffic."""
    state = WatchState(since=report.until + 1e-6, feedback=report.until + 1e-6, looks=1)
    store.records.put_document(WATCH, watch_key(project, traffic.release), state.to_json())


def judge(project: Project, traffic: Traffic, *, now: float, look: int = 1, rows: Any = None) -> WindowReport:
    """Holds rows of the traffic (all of them by default) against the release that answered them."""
    return judge_window(
        traffic.log if rows is None else rows,
        traffic.feedback,
        traffic.release.profile,
        traffic.release.contract,
        project.requirements,
        monitor_options(project),
        endpoint=project.endpoint_name,
        released=traffic.released,
        now=now,
        look=look,
        log=traffic.log,
    )


def since_time(log: Any, since: float) -> Any:
    """The rows of a log from a time (seconds since 1970) on."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if not log.num_rows:
        return log
    return log.filter(pc.greater_equal(log["time"].cast(pa.int64()), int(since * 1e6)))


def wait_for_rows(project: Project, since: float, rows: int, *, wait: float = 10.0) -> None:
    """Waits until the log, which is written off the request's path, holds that many rows, or for `wait` s."""

    def there() -> bool:
        return bool(read_predictions(project.state, project.endpoint_name, since=since).num_rows >= rows)

    until(there, wait, every=0.1)


def _kept(log: Any, digest: str) -> Any:
    import pyarrow.compute as pc

    if not log.num_rows:
        return log
    again = pc.starts_with(log["id"], AGAIN)
    return log.filter(pc.and_(pc.equal(log["release"], digest), pc.invert(again)))
