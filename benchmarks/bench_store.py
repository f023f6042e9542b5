"""Store: 100,000 ledger entries verify in under 2 s; 30,000 runs x 100 metrics list in under 1 s.

    python benchmarks/bench_store.py [--json] [--postgres] [--small]

Beside each stands the plain alternative on the same data in the same run: for the ledger, decoding and
encoding every entry with `json`; for the runs, one row a metric (the usual layout of a tracking server),
read with one query and put together in Python. `--postgres` measures a PostgreSQL server of its own too,
`--small` runs a twentieth of the size (a check of the benchmark, not of the claims). Times are the best
of five: other work on the machine only ever adds to them. Exits 1 when a target is missed.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from sqlalchemy import Column, Float, Index, Integer, MetaData, String, Table, insert, select, update

from modelyard.core.digest import canonical, digest_bytes, digest_json
from modelyard.store.database import Database
from modelyard.store.entry import GENESIS, sealed
from modelyard.store.ledger import Ledger
from modelyard.store.packing import pack_steps, pack_values
from modelyard.store.records import Records
from modelyard.store.tables import LEDGER, LEDGER_HEAD, METRIC_SETS, RUNS

VERIFY_SECONDS = 2.0
LIST_SECONDS = 1.0

ROWS = Table(
    "bench_metric_rows",
    MetaData(),
    Column("run", Integer, nullable=False),
    Column("name", String, nullable=False),
    Column("value", Float, nullable=False),
    Index("bench_by_run", "run"),
)


def best_of(call: Callable[[], Any], rounds: int = 5) -> float:
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


def fill_ledger(database: Database, count: int) -> None:
    """Entries as `append` makes them, in one transaction: the speed of appending is not the question."""
    rows, previous = [], GENESIS
    for index in range(1, count + 1):
        body = {
            "claim": "requirement.accuracy",
            "passed": True,
            "why": "the measured value 0.978 is at least 0.95",
            "measurements": [
                {"metric": "accuracy", "value": index / count, "low": 0.96, "high": 0.99, "n": 750}
            ],
        }
        entry = sealed(
            index=index, time="2026-01-01T00:00:00.000000Z", subject=digest_bytes(str(index).encode()),
            claim="requirement.accuracy", passed=True, body=body, by="bench", previous=previous,
        )  # fmt: skip
        previous = entry.hash
        row = {name: value for name, value in entry.to_json().items() if name not in ("index", "body")}
        rows.append({**row, "number": index, "body": canonical(body).decode()})
    with database.writing() as connection:
        # The triggers want the head to grow with each entry; only they stand between a batch and the table.
        if connection.dialect.name == "sqlite":
            connection.exec_driver_sql("DROP TRIGGER modelyard_ledger_in_order")
            connection.exec_driver_sql("DROP TRIGGER modelyard_ledger_head_forward")
        else:
            connection.exec_driver_sql("DROP TRIGGER modelyard_ledger_head_forward ON modelyard_ledger_head")
        for start in range(0, count, 10_000):
            connection.execute(insert(LEDGER), rows[start : start + 10_000])
        connection.execute(update(LEDGER_HEAD).values(number=count, hash=previous))


def verify_plainly(database: Database) -> None:
    previous = GENESIS
    with database.reading() as connection:
        for row in connection.execute(select(LEDGER).order_by(LEDGER.c.number)).mappings():
            entry = dict(row)
            stated = entry.pop("hash")
            entry["index"] = entry.pop("number")
            entry["body"] = json.loads(entry["body"])
            if entry["previous"] != previous or digest_json(entry) != stated:
                raise SystemExit("the plain verification disagrees")
            previous = stated


def fill_runs(database: Database, runs: int, metrics: int, *, plain: bool) -> None:
    generator = np.random.default_rng(0)
    names = sorted(f"validation/metric-{i}" for i in range(metrics))
    with database.writing() as connection:
        connection.execute(
            insert(METRIC_SETS).values(number=1, names=json.dumps(names), digest=digest_json(names))
        )
        if plain:
            ROWS.create(connection)
        for start in range(1, runs + 1, 1000):
            numbers = range(start, min(start + 1000, runs + 1))
            values = {number: generator.random(metrics).tolist() for number in numbers}
            connection.execute(
                insert(RUNS),
                [
                    {
                        "number": number, "run": f"{number:016x}", "project": "bench", "kind": "train",
                        "status": "finished", "started": "2026-01-01T00:00:00.000000Z",
                        "ended": "2026-01-01T00:01:00.000000Z", "params": '{"lr":0.001,"layers":3}',
                        "metric_set": 1, "latest_values": pack_values(values[number]),
                        "latest_steps": pack_steps([10] * metrics),
                    }
                    for number in numbers
                ],
            )  # fmt: skip
            if plain:
                connection.execute(
                    insert(ROWS),
                    [
                        {"run": number, "name": name, "value": value}
                        for number in numbers
                        for name, value in zip(names, values[number], strict=True)
                    ],
                )


def list_plainly(database: Database) -> list[dict[str, Any]]:
    with database.reading() as connection:
        rows = connection.execute(select(RUNS.c.number, RUNS.c.run, RUNS.c.status, RUNS.c.params))
        found = {row.number: {"run": row.run, "metrics": {}} for row in rows}
        for run, name, value in connection.execute(select(ROWS.c.run, ROWS.c.name, ROWS.c.value)):
            found[run]["metrics"][name] = value
    return list(found.values())


def measure(database: Database, kind: str, scale: float, *, plain_runs: bool) -> Iterator[dict[str, Any]]:
    entries, runs, metrics = int(100_000 * scale), int(30_000 * scale), 100
    ledger, records = Ledger(database), Records(database)
    fill_ledger(database, entries)
    seconds = best_of(lambda: ledger.verify() == entries or sys.exit("not all entries were verified"))
    plain = best_of(lambda: verify_plainly(database), 1)
    yield row(f"verify {entries:,} entries", kind, seconds, plain, VERIFY_SECONDS)

    fill_runs(database, runs, metrics, plain=plain_runs)
    listed = records.runs()
    if len(listed) != runs or any(len(item.metrics) != metrics for item in listed):
        sys.exit("not all runs were listed")
    del listed
    seconds = best_of(records.runs)
    plain = best_of(lambda: list_plainly(database), 1) if plain_runs else None
    yield row(f"list {runs:,} runs x {metrics}", kind, seconds, plain, LIST_SECONDS)


def row(what: str, kind: str, seconds: float, plain: float | None, target: float) -> dict[str, Any]:
    return {
        "what": what,
        "database": kind,
        "seconds": round(seconds, 3),
        "plain_seconds": None if plain is None else round(plain, 3),
        "ratio": None if plain is None else round(plain / seconds, 1),
        "target_seconds": target,
        "passed": seconds < target,
    }


@contextmanager
def databases(*, postgres: bool) -> Iterator[list[tuple[str, Database]]]:
    with tempfile.TemporaryDirectory(prefix="modelyard-bench-") as folder:
        made = [("sqlite", Database(f"sqlite:///{folder}/records.db"))]
        if not postgres:
            yield made
        else:
            with postgres_tool().running() as server:
                yield [*made, ("postgresql", Database(server.url))]


def postgres_tool() -> ModuleType:
    path = Path(__file__).parents[1] / "tools" / "postgres.py"
    spec = importlib.util.spec_from_file_location("tools_postgres", path)
    if spec is None or spec.loader is None:
        raise SystemExit(f"{path} is missing")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--postgres", action="store_true", help="measure PostgreSQL too")
    parser.add_argument("--small", action="store_true", help="a twentieth of the size")
    options = parser.parse_args()
    rows = []
    with databases(postgres=options.postgres) as made:
        for kind, database in made:
            # Three million rows take PostgreSQL minutes to write one by one; SQLite shows the comparison.
            plain_runs = kind == "sqlite" or options.small
            rows += measure(database, kind, 0.05 if options.small else 1.0, plain_runs=plain_runs)
            database.close()
    if options.json:
        print(json.dumps(rows, indent=2))
    else:
        print(f"{'what':26} {'database':11} {'seconds':>8} {'plain':>8} {'ratio':>6} {'target':>7}")
        for item in rows:
            plain = "-" if item["plain_seconds"] is None else f"{item['plain_seconds']:.3f}"
            ratio = "-" if item["ratio"] is None else f"{item['ratio']:.1f}x"
            print(
                f"{item['what']:26} {item['database']:11} {item['seconds']:8.3f} {plain:>8} {ratio:>6}"
                f" {item['target_seconds']:6.1f}s {'pass' if item['passed'] else 'MISS'}"
            )
    return 0 if all(item["passed"] for item in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
