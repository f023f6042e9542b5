"""Held-out tensors as the plain rows that a client would send."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from modelyard.core.spec import Tensors
from modelyard.data.contract import Contract


def plain_rows(tensors: Tensors, contract: Contract, indices: Iterable[int]) -> list[dict[str, Any]]:
    """Rows as JSON objects by column name; what is missing is null, tensors are nested lists."""
    return [
        {column.name: _plain(tensors[column.name][index], column.kind) for column in contract.features}
        for index in indices
    ]


def _plain(value: Any, kind: str) -> Any:
    if kind == "tensor":
        return value.tolist()
    item = value.reshape(-1)[0]
    if kind in ("category", "text"):
        return str(item) if item else None
    number = float(item)
    if math.isnan(number):
        return None
    if kind == "boolean":
        return bool(number)
    return int(number) if kind == "integer" else number
