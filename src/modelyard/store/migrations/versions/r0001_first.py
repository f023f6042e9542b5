"""Runs, metrics, documents and the ledger.

Revision ID: 0001
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

# SHA-256 of b"modelyard ledger 1", written out because a released migration never changes.
GENESIS = "sha256:511ed1b7e708544470f5b33132be4524273bbdc78f8d8339daf12697ad39f528"


def upgrade() -> None:
    name = sa.String().with_variant(sa.String(collation="C"), "postgresql")
    number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    _records(name, number)
    _ledger(name, number)
    if op.get_bind().dialect.name == "sqlite":
        _guard_sqlite()
    else:
        _guard_postgresql()


def _records(name: sa.types.TypeEngine[str], number: sa.types.TypeEngine[int]) -> None:
    op.create_table(
        "modelyard_metric_sets",
        sa.Column("number", number, primary_key=True, autoincrement=True),
        sa.Column("names", sa.Text, nullable=False),
        sa.Column("digest", name, nullable=False, unique=True),
    )
    op.create_table(
        "modelyard_runs",
        sa.Column("number", number, primary_key=True, autoincrement=True),
        sa.Column("run", name, nullable=False, unique=True),
        sa.Column("project", name, nullable=False),
        sa.Column("kind", name, nullable=False),
        sa.Column("status", name, nullable=False),
        sa.Column("started", sa.String, nullable=False),
        sa.Column("ended", sa.String),
        sa.Column("params", sa.Text, nullable=False),
        sa.Column("metric_set", number, sa.ForeignKey("modelyard_metric_sets.number")),
        sa.Column("latest_values", sa.LargeBinary),
        sa.Column("latest_steps", sa.LargeBinary),
    )
    op.create_index("modelyard_runs_by_project", "modelyard_runs", ["project", "kind", "number"])
    op.create_table(
        "modelyard_metric_history",
        sa.Column("number", number, primary_key=True, autoincrement=True),
        sa.Column("run", number, sa.ForeignKey("modelyard_runs.number"), nullable=False),
        sa.Column("step", sa.BigInteger, nullable=False),
        sa.Column("time", sa.String, nullable=False),
        sa.Column("metric_set", number, sa.ForeignKey("modelyard_metric_sets.number"), nullable=False),
        sa.Column("logged_values", sa.LargeBinary, nullable=False),
    )
    op.create_index("modelyard_metric_history_by_run", "modelyard_metric_history", ["run", "number"])
    op.create_table(
        "modelyard_documents",
        sa.Column("kind", name, primary_key=True),
        sa.Column("key", name, primary_key=True),
        sa.Column("value", sa.Text, nullable=False),
    )


def _ledger(name: sa.types.TypeEngine[str], number: sa.types.TypeEngine[int]) -> None:
    op.create_table(
        "modelyard_ledger",
        sa.Column("number", number, primary_key=True, autoincrement=False),
        sa.Column("time", sa.String, nullable=False),
        sa.Column("subject", name, nullable=False),
        sa.Column("claim", name, nullable=False),
        sa.Column("passed", sa.Boolean),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("by", sa.String, nullable=False),
        sa.Column("previous", sa.String, nullable=False),
        sa.Column("hash", sa.String, nullable=False),
    )
    op.create_index("modelyard_ledger_by_subject", "modelyard_ledger", ["subject", "claim", "number"])
    op.create_index("modelyard_ledger_by_claim", "modelyard_ledger", ["claim", "number"])
    head = op.create_table(
        "modelyard_ledger_head",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("number", sa.BigInteger, nullable=False),
        sa.Column("hash", sa.String, nullable=False),
        sa.CheckConstraint("id = 1", name="modelyard_ledger_head_one_row"),
    )
    op.bulk_insert(head, [{"id": 1, "number": 0, "hash": GENESIS}])


def _guard_sqlite() -> None:
    refuse = "BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END"
    for event in ("UPDATE", "DELETE"):
        op.execute(
            f"CREATE TRIGGER modelyard_ledger_no_{event.lower()} BEFORE {event} ON modelyard_ledger {refuse}"
        )
    # Also what stops INSERT OR REPLACE, for which SQLite fires no DELETE trigger.
    op.execute(
        "CREATE TRIGGER modelyard_ledger_in_order BEFORE INSERT ON modelyard_ledger"
        " WHEN NEW.number <> (SELECT number + 1 FROM modelyard_ledger_head)"
        " BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END"
    )
    op.execute(
        f"CREATE TRIGGER modelyard_ledger_head_no_delete BEFORE DELETE ON modelyard_ledger_head {refuse}"
    )
    op.execute(
        "CREATE TRIGGER modelyard_ledger_head_forward BEFORE UPDATE ON modelyard_ledger_head"
        f" WHEN NEW.number <> OLD.number + 1 {refuse}"
    )


def _guard_postgresql() -> None:
    op.execute(
        "CREATE FUNCTION modelyard_ledger_refuse() RETURNS trigger LANGUAGE plpgsql AS $$"
        " BEGIN RAISE EXCEPTION 'the ledger is append-only'; END $$"
    )
    refuse = "EXECUTE FUNCTION modelyard_ledger_refuse()"
    for table in ("modelyard_ledger", "modelyard_ledger_head"):
        events = "UPDATE OR DELETE OR TRUNCATE" if table == "modelyard_ledger" else "DELETE OR TRUNCATE"
        op.execute(f"CREATE TRIGGER {table}_refuse BEFORE {events} ON {table} FOR EACH STATEMENT {refuse}")
    op.execute(
        "CREATE TRIGGER modelyard_ledger_head_forward BEFORE UPDATE ON modelyard_ledger_head"
        f" FOR EACH ROW WHEN (NEW.number <> OLD.number + 1) {refuse}"
    )
