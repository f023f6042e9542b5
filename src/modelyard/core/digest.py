"""Content digests: one spelling (`sha256:<64 hex>`) and one canonical JSON for everything that is hashed."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TypeAlias

Digest: TypeAlias = str
"""`sha256:` and 64 lower-case hex digits."""

JSON: TypeAlias = bool | int | float | str | list["JSON"] | dict[str, "JSON"] | None

_PATTERN = re.compile(r"sha256:[0-9a-f]{64}\Z")
_BLOCK = 1 << 20


def digest_bytes(data: bytes | bytearray | memoryview) -> Digest:
    """The digest of some bytes.

    >>> digest_bytes(b"")[:19]
    'sha256:e3b0c44298fc'
    """
    return "sha256:" + hashlib.sha256(data).hexdigest()


def digest_file(path: Path) -> Digest:
    """The digest of a file's content, read in blocks of 1 MiB."""
    state = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            state.update(block)
    return "sha256:" + state.hexdigest()


def digest_json(value: object) -> Digest:
    """The digest of a JSON value's canonical form; equal values have equal digests."""
    return digest_bytes(canonical(value))


def canonical(value: object) -> bytes:
    """A JSON value as canonical UTF-8: keys sorted, no spaces, no NaN or infinity.

    >>> canonical({"b": 1.0, "a": [True, None]})
    b'{"a":[true,null],"b":1.0}'

    Raises `ValueError` for NaN and infinity, `TypeError` for what is not JSON.
    """
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()


def finite(value: object) -> JSON:
    """A copy of a JSON-like value in which NaN and infinities are strings, so that it can be hashed.

    >>> finite({"a": float("nan"), "b": (1, float("inf"))})
    {'a': 'nan', 'b': [1, 'inf']}
    """
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"{type(value).__name__} is not JSON")


def is_digest(text: str) -> bool:
    """Whether the text is spelled as a digest."""
    return _PATTERN.match(text) is not None


def short(digest: Digest) -> str:
    """The first 12 hex digits, for people.

    >>> short(digest_bytes(b""))
    'e3b0c44298fc'
    """
    return digest.removeprefix("sha256:")[:12]
