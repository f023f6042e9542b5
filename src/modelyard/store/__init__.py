"""Where everything is kept: objects by digest, records in SQL, and the append-only ledger."""
