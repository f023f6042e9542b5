"""Rolls back under load on a stage of its own: how long it takes, and what it breaks (infra.7)."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Event

from modelyard.core.poll import until
from modelyard.lifecycle.client import Answered
from modelyard.lifecycle.loop import Context
from modelyard.lifecycle.parts import contract_of, part_of
from modelyard.lifecycle.rows import plain_rows
from modelyard.lifecycle.stage import ENDPOINT, Stage, stage
from modelyard.measure.measurement import Measurement, Verdict
from modelyard.release.bundle import Bundle
from modelyard.release.key import signing_key, trusted_keys
from modelyard.release.load import build_bundle, load_release
from modelyard.release.policy import Canary
from modelyard.release.registry import Registry

_LIMIT = 2.0
"""Seconds within which a rollback must have taken effect."""


def drill_rollback(context: Context) -> Verdict:
    """The verdict infra.7: two copies of the release, load on the second, back to the first while it runs."""
    bundles = _copies(context)
    test = part_of(context, "test")
    rows = plain_rows(test.tensors, contract_of(context), range(min(8, len(test.targets))))
    with stage(bundles, context.project.keys, work=context.work("stages"), by=context.command) as running:
        first, second = (release.digest for release in running.releases)
        state = running.endpoints.set(
            ENDPOINT, Canary(first, second, 1.0), why="the release to roll back from", by=context.command
        )
        running.wait(state.generation)
        seconds, answered = _under_load(context, running, rows, second)
    failed = sum(not item.ok for item in answered)
    passed = failed == 0 and seconds <= _LIMIT
    why = f"rolled back under load in {seconds:.2f} s, {failed} of {len(answered)} requests failed"
    measured = Measurement("rollback_seconds", seconds, unit="s", n=1, of="a drill under load")
    return Verdict("infra.7", passed, why, (measured,), _LIMIT, {"requests": len(answered), "failed": failed})


def _under_load(
    context: Context, running: Stage, rows: list[dict[str, object]], second: str
) -> tuple[float, list[Answered]]:
    """Seconds from the rollback's entry to the last answer of the release that was left, and all answers."""
    done = Event()
    log: list[tuple[float, Answered]] = []

    def load(worker: int) -> None:
        number = 0
        while not done.is_set():
            row = rows[number % len(rows)]
            answered = running.client.predict(ENDPOINT, number, row, f"drill-{worker}-{number}")
            log.append((time.monotonic(), answered))
            number += 1

    with ThreadPoolExecutor(2) as pool:
        futures = [pool.submit(load, worker) for worker in range(2)]
        try:
            until(lambda: len(log) >= 50, every=0.01)
            state = running.endpoints.rollback(ENDPOINT, why="drill", by=context.command)
            began = time.monotonic()
            running.wait(state.generation)
            settled = len(log)
            until(lambda: len(log) >= settled + 50, every=0.01)
        finally:
            done.set()
    for future in futures:
        future.result()
    late = [moment for moment, item in log if item.body.get("release") == second]
    return max([0.0, *(moment - began for moment in late)]), [item for _, item in log]


def _copies(context: Context) -> tuple[Bundle, Bundle]:
    registry = Registry(context.store, trusted_keys(context.project.keys))
    loaded = load_release(registry.fetch(registry.by_digest(context.values("release")["release"])))

    def copy(version: int) -> Bundle:
        return build_bundle(
            replace(loaded.info, name=ENDPOINT, version=version),
            model=loaded.model,
            contract=loaded.contract,
            profile=loaded.profile,
            requirements=loaded.requirements,
            evidence=(),
            answers=loaded.answers,
            key=signing_key(context.project.keys),
        )

    return copy(1), copy(2)
