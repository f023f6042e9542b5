"""JSON from a file that may be hostile: bounded, each key once, no NaN, and no crash on deep nesting."""

from __future__ import annotations

import json
from typing import Any

from modelyard.core.errors import BundleTampered, ReleaseError


def parse_object(data: bytes, *, where: str, error: type[ReleaseError] = BundleTampered) -> dict[str, Any]:
    """A JSON object from UTF-8 bytes; raises `error` naming the file `where` for anything else.

    >>> parse_object(b'{"a": 1}', where="release.json")
    {'a': 1}
    """
    try:
        value = json.loads(data.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError) as reason:
        raise error(
            f"{where} cannot be read", value=str(reason), rule="one JSON object, each key once", where=where
        ) from reason
    if not isinstance(value, dict):
        raise error(
            f"{where} cannot be read", value=type(value).__name__, rule="one JSON object", where=where
        )
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a key comes twice")
    return value


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")
