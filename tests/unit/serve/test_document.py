"""A JSON object out of a body: no key twice, found by counting and held against Python's own reader."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelyard.core.errors import RequestError
from modelyard.serve.codec.document import check_keys, keys_of, load, read_object


class Pairs(list[Any]):
    """An object as it may be written: keys in order, any of them twice."""


TEXTS = st.text(alphabet='ab:"\\{}[],\n é', max_size=6)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.lists(st.tuples(TEXTS, inner), max_size=4).map(Pairs),
    max_leaves=12,
)


def written(value: Any, space: str) -> str:
    if isinstance(value, Pairs):
        inner = ",".join(f"{json.dumps(key)}{space}:{space}{written(item, space)}" for key, item in value)
        return "{" + inner + "}"
    if isinstance(value, list):
        return "[" + f",{space}".join(written(item, space) for item in value) + "]"
    return json.dumps(value)


def has_twice(value: Any) -> bool:
    if isinstance(value, Pairs):
        keys = [key for key, _ in value]
        return len(set(keys)) < len(keys) or any(has_twice(item) for _, item in value)
    return isinstance(value, list) and any(has_twice(item) for item in value)


@settings(max_examples=400, deadline=None)
@given(st.lists(st.tuples(TEXTS, VALUES), max_size=5).map(Pairs), st.sampled_from(["", " ", "\n\t"]))
def test_a_key_twice_is_found_wherever_it_is_and_nothing_else(pairs: Pairs, space: str) -> None:
    text = written(pairs, space)
    if has_twice(pairs):
        with pytest.raises(RequestError, match="given twice"):
            read_object(text.encode())
        return
    value = read_object(text.encode())
    assert value == json.loads(text)
    # Readers that met fewer keys than there are only cost a closer look.
    for met in range(keys_of(value) + 1):
        check_keys(text.encode(), value, met)


def test_large_bodies_are_not_read_again() -> None:
    body = b'{"a": 1, "a": 2, "b": "' + b"x" * (2 << 20) + b'"}'
    with pytest.raises(RequestError, match="a key is given twice"):
        read_object(body)


def test_what_python_writes_for_no_number() -> None:
    assert str(load(b'{"a": [NaN, Infinity, -Infinity]}')["a"]) == "[nan, inf, -inf]"
    with pytest.raises(RequestError, match="got 'a'"):
        load(b'{"a": NaN, "a": 1}')
    for body in (b'{"a": NaN', b"NaN", b'{"NaN": "\xff"}', b'{"NaN":' + b"9" * 9_000 + b"}"):
        with pytest.raises(RequestError, match="JSON"):
            load(body)
