"""The tables as SQLAlchemy sees them. The migrations make them; a test holds both equal on both databases."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
)

METADATA = MetaData()

# Text that is looked up is compared by code point on both databases.
_NAME = String().with_variant(String(collation="C"), "postgresql")
_NUMBER = BigInteger().with_variant(Integer(), "sqlite")

METRIC_SETS = Table(
    "modelyard_metric_sets",
    METADATA,
    Column("number", _NUMBER, primary_key=True, autoincrement=True),
    Column("names", Text, nullable=False),
    Column("digest", _NAME, nullable=False, unique=True),
)
"""Sorted lists of metric names. Most runs log the same names, so a run keeps a number instead of them."""

RUNS = Table(
    "modelyard_runs",
    METADATA,
    Column("number", _NUMBER, primary_key=True, autoincrement=True),
    Column("run", _NAME, nullable=False, unique=True),
    Column("project", _NAME, nullable=False),
    Column("kind", _NAME, nullable=False),
    Column("status", _NAME, nullable=False),
    Column("started", String, nullable=False),
    Column("ended", String),
    Column("params", Text, nullable=False),
    Column("metric_set", _NUMBER, ForeignKey("modelyard_metric_sets.number")),
    Column("latest_values", LargeBinary),
    Column("latest_steps", LargeBinary),
    Index("modelyard_runs_by_project", "project", "kind", "number"),
)
"""One row a run. Its latest metrics are packed beside it: listing runs reads no other row."""

HISTORY = Table(
    "modelyard_metric_history",
    METADATA,
    Column("number", _NUMBER, primary_key=True, autoincrement=True),
    Column("run", _NUMBER, ForeignKey("modelyard_runs.number"), nullable=False),
    Column("step", BigInteger, nullable=False),
    Column("time", String, nullable=False),
    Column("metric_set", _NUMBER, ForeignKey("modelyard_metric_sets.number"), nullable=False),
    Column("logged_values", LargeBinary, nullable=False),
    Index("modelyard_metric_history_by_run", "run", "number"),
)
"""One row a call of `log_metrics`: every value that was ever logged."""

DOCUMENTS = Table(
    "modelyard_documents",
    METADATA,
    Column("kind", _NAME, primary_key=True),
    Column("key", _NAME, primary_key=True),
    Column("value", Text, nullable=False),
)

LEDGER = Table(
    "modelyard_ledger",
    METADATA,
    Column("number", _NUMBER, primary_key=True, autoincrement=False),
    Column("time", String, nullable=False),
    Column("subject", _NAME, nullable=False),
    Column("claim", _NAME, nullable=False),
    Column("passed", Boolean),
    Column("body", Text, nullable=False),
    Column("by", String, nullable=False),
    Column("previous", String, nullable=False),
    Column("hash", String, nullable=False),
    Index("modelyard_ledger_by_subject", "subject", "claim", "number"),
    Index("modelyard_ledger_by_claim", "claim", "number"),
)

LEDGER_HEAD = Table(
    "modelyard_ledger_head",
    METADATA,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("number", BigInteger, nullable=False),
    Column("hash", String, nullable=False),
    CheckConstraint("id = 1", name="modelyard_ledger_head_one_row"),
)
"""One row: the newest entry. Its lock makes one writer at a time; it shows when the last entries are gone."""
