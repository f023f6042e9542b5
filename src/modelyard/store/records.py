"""Runs with their parameters and metrics, and JSON documents by kind and key."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from modelyard.core.clock import SYSTEM_CLOCK, Clock, iso
from modelyard.core.digest import JSON, digest_json
from modelyard.core.errors import StoreError
from modelyard.store.packing import decoder, pack_steps, pack_values, unpack_steps, unpack_values

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Connection

    from modelyard.store.database import Database

RUNNING = "running"


@dataclass(frozen=True, slots=True)
class RunRow:
    """One run as it is listed: its parameters and, of every metric, the latest value."""

    run: str
    project: str
    kind: str
    status: str
    """`running` until `finish_run` says otherwise."""
    started: str
    """RFC 3339 in UTC."""
    ended: str | None
    params: dict[str, JSON]
    metrics: dict[str, float]
    """The value of the highest step, by metric name; of several at that step, the one logged last."""


@dataclass(frozen=True, slots=True)
class MetricPoint:
    """One logged value of one metric."""

    step: int
    time: str
    value: float


class Records:
    """What is written down while work goes on, in SQLite or PostgreSQL.

    Every write is one transaction and durable when the call returns. Failures of the database are
    `StoreError` (`StoreBusy` when locked too long); a run that is not there is `StoreError` too.
    """

    def __init__(self, database: Database, clock: Clock = SYSTEM_CLOCK) -> None:
        self._database = database
        self._clock = clock

    def __repr__(self) -> str:
        return f"Records({self._database.place!r})"

    @property
    def url(self) -> str:
        """The SQLAlchemy URL, password included: for other libraries, never for people."""
        return self._database.url

    def start_run(self, project: str, kind: str, params: Mapping[str, JSON] | None = None) -> str:
        """Begins a run and returns its id (16 hex digits). Params that are not JSON raise `TypeError`."""
        from sqlalchemy import insert

        from modelyard.store.tables import RUNS

        run = secrets.token_hex(8)
        text = _dumped(dict(params or {}))
        with self._database.writing() as connection:
            connection.execute(
                insert(RUNS).values(
                    run=run,
                    project=project,
                    kind=kind,
                    status=RUNNING,
                    started=iso(self._clock.now()),
                    params=text,
                )
            )
        return run

    def log_metrics(self, run: str, metrics: Mapping[str, float], step: int = 0) -> None:
        """Writes down some metrics of a run at a step; all of them, or none when it raises."""
        from sqlalchemy import insert, select, update

        from modelyard.store.tables import HISTORY, RUNS

        given = {name: float(metrics[name]) for name in sorted(metrics)}
        if not given:
            return
        with self._database.writing() as connection:
            column = RUNS.c
            row = connection.execute(
                select(column.number, column.metric_set, column.latest_values, column.latest_steps)
                .where(column.run == run)
                .with_for_update()
            ).one_or_none()
            if row is None:
                raise _no_run(run)
            logged = _metric_set(connection, tuple(given))
            connection.execute(
                insert(HISTORY).values(
                    run=row.number,
                    step=step,
                    time=iso(self._clock.now()),
                    metric_set=logged,
                    logged_values=pack_values(tuple(given.values())),
                )
            )
            latest = {} if row.metric_set is None else _latest(connection, row)
            for name, value in given.items():
                if name not in latest or step >= latest[name][1]:
                    latest[name] = (value, step)
            names = tuple(sorted(latest))
            connection.execute(
                update(RUNS)
                .where(column.number == row.number)
                .values(
                    metric_set=logged if names == tuple(given) else _metric_set(connection, names),
                    latest_values=pack_values([latest[name][0] for name in names]),
                    latest_steps=pack_steps([latest[name][1] for name in names]),
                )
            )

    def finish_run(self, run: str, status: str = "finished") -> None:
        """Ends a run with a status such as `finished`, `failed` or `pruned`."""
        from sqlalchemy import update

        from modelyard.store.tables import RUNS

        with self._database.writing() as connection:
            done = connection.execute(
                update(RUNS).where(RUNS.c.run == run).values(status=status, ended=iso(self._clock.now()))
            )
            if done.rowcount == 0:
                raise _no_run(run)

    def runs(
        self, project: str | None = None, kind: str | None = None, limit: int | None = None
    ) -> list[RunRow]:
        """Runs, newest first, with their latest metrics."""
        from modelyard.store.tables import RUNS

        conditions = []
        if project is not None:
            conditions.append(RUNS.c.project == project)
        if kind is not None:
            conditions.append(RUNS.c.kind == kind)
        return self._listed(conditions, limit)

    def run(self, run: str) -> RunRow:
        """One run; raises `StoreError` when there is none of that id."""
        from modelyard.store.tables import RUNS

        found = self._listed([RUNS.c.run == run], 1)
        if not found:
            raise _no_run(run)
        return found[0]

    def history(self, run: str, metric: str) -> list[MetricPoint]:
        """Every value of one metric of one run, in the order in which they were logged."""
        from sqlalchemy import select

        from modelyard.store.tables import HISTORY, METRIC_SETS, RUNS

        query = (
            select(HISTORY.c.step, HISTORY.c.time, METRIC_SETS.c.names, HISTORY.c.logged_values)
            .join(RUNS, HISTORY.c.run == RUNS.c.number)
            .join(METRIC_SETS, HISTORY.c.metric_set == METRIC_SETS.c.number)
            .where(RUNS.c.run == run)
            .order_by(HISTORY.c.number)
        )
        points = []
        with self._database.reading() as connection:
            for step, time, text, values in connection.execute(query):
                names = json.loads(text)
                if metric in names:
                    points.append(MetricPoint(step, time, unpack_values(values)[names.index(metric)]))
        return points

    def put_document(self, kind: str, key: str, value: JSON) -> None:
        """Writes a document, replacing the one of that kind and key. The order of keys inside is kept."""
        from modelyard.store.tables import DOCUMENTS

        text = _dumped(value)
        with self._database.writing() as connection:
            insert = _insert(connection)
            statement = insert(DOCUMENTS).values(kind=kind, key=key, value=text)
            connection.execute(
                statement.on_conflict_do_update(index_elements=["kind", "key"], set_={"value": text})
            )

    def get_document(self, kind: str, key: str) -> JSON:
        """A document, or `None` when there is none."""
        from sqlalchemy import select

        from modelyard.store.tables import DOCUMENTS

        query = select(DOCUMENTS.c.value).where(DOCUMENTS.c.kind == kind, DOCUMENTS.c.key == key)
        with self._database.reading() as connection:
            text = connection.execute(query).scalar()
        found: JSON = None if text is None else json.loads(text)
        return found

    def documents(self, kind: str) -> list[tuple[str, JSON]]:
        """All documents of a kind with their keys, sorted by key."""
        from sqlalchemy import select

        from modelyard.store.tables import DOCUMENTS

        column = DOCUMENTS.c
        query = select(column.key, column.value).where(column.kind == kind).order_by(column.key)
        with self._database.reading() as connection:
            return [(key, json.loads(text)) for key, text in connection.execute(query)]

    def delete_document(self, kind: str, key: str) -> None:
        """Deletes a document; nothing happens when there is none."""
        from sqlalchemy import delete

        from modelyard.store.tables import DOCUMENTS

        with self._database.writing() as connection:
            connection.execute(delete(DOCUMENTS).where(DOCUMENTS.c.kind == kind, DOCUMENTS.c.key == key))

    def _listed(self, conditions: list[ColumnElement[bool]], limit: int | None) -> list[RunRow]:
        from sqlalchemy import select

        from modelyard.store.tables import METRIC_SETS, RUNS

        column = RUNS.c
        query = (
            select(
                column.run,
                column.project,
                column.kind,
                column.status,
                column.started,
                column.ended,
                column.params,
                column.metric_set,
                column.latest_values,
            )
            .where(*conditions)
            .order_by(column.number.desc())
            .limit(limit)
        )
        sets = select(METRIC_SETS.c.number, METRIC_SETS.c.names)
        if limit is not None:
            used = select(column.metric_set).where(*conditions).order_by(column.number.desc()).limit(limit)
            sets = sets.where(METRIC_SETS.c.number.in_(used.subquery().select()))
        # `json.loads` would look for white space around each of thousands of texts that have none.
        decode = json.JSONDecoder().raw_decode
        with self._database.reading() as connection:
            decoders = {number: decoder(json.loads(text)) for number, text in connection.execute(sets)}
            return [
                RunRow(
                    run,
                    project,
                    kind,
                    status,
                    started,
                    ended,
                    decode(params)[0],
                    {} if values is None else decoders[number](values),
                )
                for run, project, kind, status, started, ended, params, number, values in connection.execute(
                    query
                )
            ]


def _metric_set(connection: Connection, names: tuple[str, ...]) -> int:
    """The number of a sorted list of metric names, made when it is new."""
    from sqlalchemy import select

    from modelyard.store.tables import METRIC_SETS

    digest = digest_json(names)
    query = select(METRIC_SETS.c.number).where(METRIC_SETS.c.digest == digest)
    found = connection.execute(query).scalar()
    if found is None:
        statement = _insert(connection)(METRIC_SETS).values(names=json.dumps(names), digest=digest)
        connection.execute(statement.on_conflict_do_nothing(index_elements=["digest"]))
        found = connection.execute(query).scalar_one()
    return int(found)


def _latest(connection: Connection, row: Any) -> dict[str, tuple[float, int]]:
    from sqlalchemy import select

    from modelyard.store.tables import METRIC_SETS

    text = connection.execute(
        select(METRIC_SETS.c.names).where(METRIC_SETS.c.number == row.metric_set)
    ).scalar_one()
    values = unpack_values(row.latest_values)
    pairs = zip(values, unpack_steps(row.latest_steps, len(values)), strict=True)
    return dict(zip(json.loads(text), pairs, strict=True))


def _insert(connection: Connection) -> Any:
    """The dialect's INSERT: both spell ON CONFLICT alike, but SQLAlchemy keeps it in the dialects."""
    if connection.dialect.name == "sqlite":
        from sqlalchemy.dialects.sqlite import insert as sqlite_insert

        return sqlite_insert
    from sqlalchemy.dialects.postgresql import insert as postgresql_insert

    return postgresql_insert


def _dumped(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), allow_nan=False)


def _no_run(run: str) -> StoreError:
    return StoreError("there is no such run", value=run, fix="list the runs to see their ids")
