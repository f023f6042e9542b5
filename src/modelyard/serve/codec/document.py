"""A JSON object out of a body: UTF-8, no key twice, and said where it is not JSON.

Readers of JSON disagree about a key that is given twice: some take the first, some the last. What a gateway
checked must be what is answered, so such a body is refused. Finding one costs a scan for colons only: a
body has as many as its objects have keys, unless a text holds one or a key is there twice.
"""

from __future__ import annotations

import json
import re
from typing import Any

import orjson

from modelyard.core.errors import RequestError

_TEXT = re.compile(rb'"(?:[^"\\]++|\\.)*+"[ \t\r\n]*+(:?)')
_NAMED = 1 << 20
"""Bodies up to this size are read again to name the key."""
_FEW = 64


def read_object(body: bytes | memoryview) -> dict[str, Any]:
    """A JSON object; raises `RequestError` for anything else, with the place where it stops being JSON."""
    value = load(body)
    check_keys(body, value, keys_of(value))
    return value


def load(body: bytes | memoryview) -> dict[str, Any]:
    """As `read_object`, without looking for keys that are given twice: `check_keys` does."""
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        value = _python_json(bytes(body), error)
    if type(value) is not dict:
        raise RequestError(
            "the body is no JSON object", value=kind_of(value), where="body", rule="an object {...}"
        )
    return value


def keys_of(head: dict[str, Any]) -> int:
    """How many keys an object has, with the objects in its fields and lists, and those in their fields."""
    count = len(head)
    for value in head.values():
        if type(value) is list:
            for item in value:
                if type(item) is dict:
                    count += len(item) + sum(len(inner) for inner in item.values() if type(inner) is dict)
        elif type(value) is dict:
            count += len(value)
    return count


def check_keys(body: bytes | memoryview, value: dict[str, Any], keys: int) -> None:
    """Refuses a body in which a key is given twice; `keys` is how many the reader met, or fewer.

    Raises `RequestError` that names the key, unless the body is large.
    """
    text = body if type(body) is bytes else bytes(body)
    if _colons(text, keys) == keys:
        return
    if sum(1 for match in _TEXT.finditer(text) if match.end(1) > match.start(1)) > _all_keys(value):
        if len(text) <= _NAMED:
            json.loads(text, object_pairs_hook=_once)
        raise RequestError("a key is given twice", where="body", rule="each key of an object once")


def kind_of(value: object) -> str | None:
    """The type of a value, for a message; `None` for none."""
    return None if value is None else type(value).__name__


def _colons(text: bytes, expected: int) -> int:
    """How many colons there are, or one more than expected when there are more."""
    if expected > _FEW:
        return text.count(b":")
    # `find` looks at many bytes at once, `count` at one after the other.
    at = -1
    for found in range(expected + 1):
        at = text.find(b":", at + 1)
        if at < 0:
            return found
    return expected + 1


def _all_keys(value: object) -> int:
    count = 0
    left = [value]
    while left:
        item = left.pop()
        if type(item) is dict:
            count += len(item)
            left.extend(item.values())
        elif type(item) is list:
            left.extend(item)
    return count


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for key, item in pairs:
        if key in value:
            raise RequestError("the key is given twice", value=key, where="body",
                               rule="each key of an object once")  # fmt: skip
        value[key] = item
    return value


def _python_json(body: bytes, error: orjson.JSONDecodeError) -> object:
    """What Python's encoder writes for NaN and infinities is no JSON, but meant well."""
    if b"NaN" in body or b"Infinity" in body:
        try:
            return json.loads(body.decode(), object_pairs_hook=_once)
        except (ValueError, RecursionError):
            pass
    raise RequestError("the body is no JSON", value=str(error)[:120], where="body") from None
