"""Plain rows over HTTP: `POST /predict/{endpoint}`."""

from __future__ import annotations

from modelyard.core.spec import Tensors
from modelyard.data.rows import from_rows
from modelyard.serve.codec.rows import Rows, read_rows, write_rows
from modelyard.serve.exchange import Headers, Written
from modelyard.serve.options import Limits
from modelyard.serve.pool import Served


class SpokenRows:
    """A request in plain rows."""

    __slots__ = ("_rows", "id", "key")

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self.id = rows.id
        self.key = rows.key

    def tensors(self, served: Served) -> tuple[Tensors, int]:
        """The rows as the contract's features."""
        return from_rows(self._rows.rows, served.contract), len(self._rows.rows)

    def write(self, endpoint: str, served: Served, identity: str, outputs: Tensors) -> Written:
        """Labels or predictions by id."""
        return Written(
            write_rows(endpoint, served.digest, served.version, identity, outputs, labels=served.labels)
        )


def speak_rows(body: bytes, headers: Headers, limits: Limits) -> SpokenRows:
    """Reads a request in plain rows."""
    return SpokenRows(read_rows(body, limit=limits.rows))
