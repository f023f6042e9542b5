"""Arrow record batches over HTTP: plain rows in the streaming format, to `POST /predict/{endpoint}`."""

from __future__ import annotations

from typing import Any

from modelyard.core.spec import Tensors
from modelyard.serve.codec.arrow import ARROW_TYPE, read_table, tensors_of, write_table
from modelyard.serve.exchange import Headers, Written
from modelyard.serve.options import Limits
from modelyard.serve.pool import Served


class SpokenTable:
    """A request in record batches."""

    __slots__ = ("_limits", "_table", "id", "key")

    def __init__(self, table: Any, limits: Limits) -> None:
        self._table = table
        self._limits = limits
        self.id = self.key = ""

    def tensors(self, served: Served) -> tuple[Tensors, int]:
        """The columns as the contract's features."""
        limits = self._limits
        inputs = tensors_of(self._table, served.contract, elements=limits.elements, room=limits.body)
        return inputs, self._table.num_rows

    def write(self, endpoint: str, served: Served, identity: str, outputs: Tensors) -> Written:
        """Labels or predictions by id, as columns."""
        body = write_table(endpoint, served.digest, served.version, identity, outputs, labels=served.labels)
        return Written(body, ARROW_TYPE)


def speak_arrow(body: bytes, headers: Headers, limits: Limits) -> SpokenTable:
    """Reads a request in Arrow's streaming format."""
    return SpokenTable(read_table(body, rows=limits.rows), limits)
