"""The Alembic migrations of the records and the ledger. A released one is never changed."""
