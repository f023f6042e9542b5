"""Protobuf messages counted from the raw bytes, before a parser turns two bytes into a hundred."""

from __future__ import annotations

import re
from typing import Any

from modelyard.core.errors import ModelError

_VARINT, _EIGHT, _BLOCK, _FOUR = 0, 1, 2, 5
_MAX_DEPTH = 90  # protobuf's own limit is 100

Table = dict[int, "Table | None"]
"""Field number to the table of the message it holds, `TEXT` for a text and `None` for a bytes field."""

TEXT: Table = {}


def count_messages(data: bytes, table: Table, limit: int) -> int:
    """How many messages and texts a protobuf holds; reads each byte at most once and builds nothing.

    Raises `ModelError` when there are more than `limit`, when they nest too deeply, and when the bytes are
    not protobuf. The encoding is that of https://protobuf.dev/programming-guides/encoding.
    """
    count, position = 0, 0
    stack: list[tuple[int, Table]] = [(len(data), table)]
    while stack:
        end, fields = stack[-1]
        if position == end:
            stack.pop()
            continue
        key, position = _varint(data, position, end)
        number, kind = key >> 3, key & 7
        if number == 0:
            raise _broken(position)
        if kind == _BLOCK:
            length, position = _varint(data, position, end)
            if length > end - position:
                raise _broken(position)
            count += number in fields
            if count > limit:
                raise ModelError(
                    "the file consists of too many parts", value=f"over {limit}", rule=f"at most {limit}"
                )
            inner = fields.get(number)
            if inner is TEXT:
                # The parser hands out bytes where text is not UTF-8; no later check expects that.
                _check_text(data, position, length)
            if inner is None or inner is TEXT:
                position += length
                continue
            if len(stack) >= _MAX_DEPTH:
                raise ModelError("the file nests too deeply", rule=f"at most {_MAX_DEPTH} levels")
            stack.append((position + length, inner))
        else:
            position = _scalars(data, position, end, key)
    return count


def onnx_table() -> Table:
    """The table of `onnx.ModelProto`, made from the library's own schema."""
    import onnx

    known: dict[str, Table] = {}

    def table_of(message: Any) -> Table:
        if message.full_name not in known:
            table = known[message.full_name] = {}
            for field in message.fields:
                if field.message_type is not None:
                    table[field.number] = table_of(field.message_type)
                elif field.type == field.TYPE_STRING:
                    table[field.number] = TEXT
                elif field.type == field.TYPE_BYTES:
                    table[field.number] = None
        return known[message.full_name]

    return table_of(onnx.ModelProto.DESCRIPTOR)


def _scalars(data: bytes, position: int, end: int, key: int) -> int:
    """The position after a scalar and after those of the same field that follow it (trees hold millions)."""
    kind = key & 7
    if kind == _VARINT:
        _, position = _varint(data, position, end)
        value = rb"[\x80-\xff]{0,9}[\x00-\x7f]"
    elif kind in (_EIGHT, _FOUR):
        width = 8 if kind == _EIGHT else 4
        position += width
        value = b"[\\x00-\\xff]{%d}" % width
    else:
        raise _broken(position)
    if position > end:
        raise _broken(position)
    if key < 0x80 and position < end and data[position] == key:
        run = re.compile(b"(?:%s%s)*+" % (re.escape(bytes([key])), value), re.DOTALL).match(
            data, position, end
        )
        position = run.end() if run else position
    return position


def _check_text(data: bytes, position: int, length: int) -> None:
    try:
        data[position : position + length].decode()
    except UnicodeDecodeError as error:
        raise _broken(position) from error


def _varint(data: bytes, position: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while position < end and shift < 64:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
    raise _broken(position)


def _broken(position: int) -> ModelError:
    return ModelError(
        "the bytes are not an ONNX file",
        value=f"broken at byte {position}",
        rule="one whole ModelProto",
        fix="check that the file was copied whole",
    )
