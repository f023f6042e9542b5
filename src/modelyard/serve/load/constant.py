"""A constant answer over Granian's RSGI, and nothing else: what the HTTP engine alone can do."""

from __future__ import annotations

import os
from typing import Any

SIZE = "MODELYARD_CONSTANT_BODY"
"""The environment variable with the size of the answer's body in bytes."""

_BODY = b'"' + b"x" * max(0, int(os.environ.get(SIZE, "2")) - 2) + b'"'
_HEADERS = [("content-type", "application/json")]


async def app(scope: Any, protocol: Any) -> None:
    """Reads the request's body and answers."""
    await protocol()
    protocol.response_bytes(200, _HEADERS, _BODY)
