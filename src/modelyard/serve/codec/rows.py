"""Plain rows: `{"rows": [{"age": 63, "sex": "male"}, ...]}` in, labels or predictions by id out."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import orjson

from modelyard.core.errors import RequestError
from modelyard.core.spec import Tensors
from modelyard.serve.codec.document import check_keys, load
from modelyard.serve.codec.inference import read_id


class Rows(msgspec.Struct, frozen=True, gc=False):
    """A request in plain rows; `key` is what routing sticks to."""

    id: str
    rows: list[dict[str, Any]]
    key: str


def read_rows(body: bytes, *, limit: int) -> Rows:
    """Reads a request; the columns are checked later, by the contract of the release that will answer."""
    head = load(body)
    rows = head.get("rows")
    if type(rows) is not list or not rows:
        raise RequestError("the request has no rows", where="rows", value=type(rows).__name__,
                           rule='{"rows": [{...}, ...]} with at least one row')  # fmt: skip
    if len(rows) > limit:
        raise RequestError("the request has too many rows", value=len(rows), status=413, where="rows",
                           rule=f"at most {limit}")  # fmt: skip
    for index, row in enumerate(rows):
        if type(row) is not dict:
            raise RequestError("the row is no object", value=type(row).__name__, where=f"rows[{index}]")
    check_keys(body, head, len(head) + sum(map(len, rows)))
    key = head.get("key")
    if key is not None and type(key) is not str:
        raise RequestError("the routing key is no text", value=key, where="key")
    identity = read_id(head.get("id"))
    return Rows(identity, rows, key or identity)


def write_rows(
    endpoint: str, release: str, version: str, identity: str, outputs: Tensors, *, labels: tuple[str, ...]
) -> bytes:
    """The answer: each item's label with confidence and probabilities by label, or its prediction."""
    ids = item_ids(identity, len(next(iter(outputs.values()))))
    if labels:
        probabilities = outputs["probabilities"]
        best = probabilities.argmax(axis=1)
        predictions: list[dict[str, Any]] = [
            {
                "id": ids[index],
                "label": labels[top],
                "confidence": row[top],
                "probabilities": dict(zip(labels, row, strict=True)),
            }
            for index, (top, row) in enumerate(zip(best.tolist(), probabilities.tolist(), strict=True))
        ]
    else:
        values = np.asarray(outputs["prediction"], dtype=np.float64).reshape(-1).tolist()
        predictions = [{"id": ids[index], "prediction": value} for index, value in enumerate(values)]
    return orjson.dumps(
        {
            "id": identity,
            "endpoint": endpoint,
            "release": release,
            "version": version,
            "predictions": predictions,
        }
    )


def item_ids(identity: str, rows: int) -> list[str]:
    """The id of each item of a request.

    >>> item_ids("a", 1), item_ids("a", 2)
    (['a'], ['a.0', 'a.1'])
    """
    return [identity] if rows == 1 else [f"{identity}.{index}" for index in range(rows)]
