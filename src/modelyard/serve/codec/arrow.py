"""Arrow's streaming format: plain rows as record batches, columns named as the contract, and answers back.

Source: Arrow Columnar Format 1.5, "IPC Streaming Format". Before a batch is read its metadata is looked at:
its rows are bounded, and compressed batches are refused, for they are unpacked into memory that the sender
names. What is read is validated in full before its values are touched.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from modelyard.core.errors import DataError, RequestError
from modelyard.core.names import did_you_mean
from modelyard.core.spec import Tensors
from modelyard.data.physical import is_number, is_tensor, is_text, plain
from modelyard.data.tensors import features
from modelyard.serve.codec.rows import item_ids

if TYPE_CHECKING:
    from modelyard.data.contract import Column, Contract

ARROW_TYPE = "application/vnd.apache.arrow.stream"

_BATCH, _DICTIONARY = 3, 2
_MESSAGES = 4_096


def read_table(body: bytes, *, rows: int) -> pa.Table:
    """The table of a stream of at most `rows` rows; raises `RequestError` for anything else."""
    buffer = pa.py_buffer(body)
    try:
        _look(buffer, rows)
        with pa.ipc.open_stream(buffer) as reader:
            table = reader.read_all()
        table.validate(full=True)
    except RequestError:
        raise
    except (
        pa.ArrowException,
        OSError,
        ValueError,
        TypeError,
        KeyError,
        struct.error,
        OverflowError,
    ) as error:
        raise RequestError("the body is no Arrow stream", value=str(error)[:160], where="body",
                           rule="the streaming format, uncompressed") from None  # fmt: skip
    if table.num_rows < 1:
        raise RequestError("the stream has no row", where="body", rule=f"1 to {rows}")
    return table


def tensors_of(table: pa.Table, contract: Contract, *, elements: int, room: int) -> Tensors:
    """The features as the model's inputs; texts may take `room` bytes in all.

    Raises `RequestError` naming the column.
    """
    table = _complete(table, contract)
    for column in contract.features:
        where = f"column {column.name!r}"
        values = table[column.name]
        if column.kind == "tensor" and len(values) * int(np.prod(column.shape or ())) > elements:
            raise RequestError("the tensor is too large", value=column.shape, status=413, where=where,
                               rule=f"at most {elements} elements")  # fmt: skip
        room -= _text_bytes(values)
        if room < 0:
            raise RequestError("the texts are too long", status=413, where=where)
        if column.missing_max == 0 and values.null_count:
            raise RequestError("a value is missing", where=where, rule="a value in every row")
    try:
        inputs = features(plain(table), contract)
    except DataError as error:
        raise RequestError(error.what, value=error.value, rule=error.rule, fix=error.fix,
                           where="body") from None  # fmt: skip
    except (pa.ArrowException, ValueError, TypeError) as error:
        raise RequestError("a column cannot be read", value=str(error)[:160], where="body") from None
    for column in contract.features:
        _check_values(inputs[column.name], column)
    return inputs


def write_table(
    endpoint: str, release: str, version: str, identity: str, outputs: Tensors, *, labels: tuple[str, ...]
) -> bytes:
    """The answer: `id`, and `label`, `confidence`, `probabilities`, or `prediction`; metadata says who."""
    ids = pa.array(item_ids(identity, len(next(iter(outputs.values())))), pa.string())
    if labels:
        probabilities = outputs["probabilities"].astype(np.float32, copy=False)
        best = probabilities.argmax(axis=1)
        flat = pa.array(np.ascontiguousarray(probabilities).reshape(-1))
        columns = {
            "id": ids,
            "label": pa.array([labels[top] for top in best.tolist()], pa.string()),
            "confidence": pa.array(probabilities[np.arange(len(best)), best]),
            "probabilities": pa.FixedSizeListArray.from_arrays(flat, len(labels)),
        }
    else:
        columns = {"id": ids, "prediction": pa.array(outputs["prediction"].astype(np.float64).reshape(-1))}
    facts = {"id": identity, "endpoint": endpoint, "release": release, "version": version}
    table = pa.table(columns).replace_schema_metadata(facts | {"labels": "\x1f".join(labels)})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    written: bytes = sink.getvalue().to_pybytes()
    return written


def _complete(table: pa.Table, contract: Contract) -> pa.Table:
    """The features' columns alone; those that may be left out are there as nulls."""
    names = table.column_names
    known = [column.name for column in contract.columns]
    unknown = next((name for name in names if name not in known), None)
    if unknown is not None:
        raise RequestError(f"there is no column {unknown[:64]!r}", rule="only the contract's columns",
                           fix=did_you_mean(unknown, known), where="schema")  # fmt: skip
    if len(set(names)) != len(names):
        twice = next(name for name in known if names.count(name) > 1)
        raise RequestError("a column is given twice", value=twice, where="schema", rule="each name once")
    for column in contract.features:
        if column.name in names:
            continue
        if column.missing_max == 0 or column.kind == "tensor":
            raise RequestError("a column is missing", value=column.name, where="schema",
                               fix=did_you_mean(column.name, names))  # fmt: skip
        table = table.append_column(column.name, pa.nulls(table.num_rows))
    return table.select([column.name for column in contract.features])


def _check_values(values: np.ndarray, column: Column) -> None:
    """As plain rows do: nothing missing that must be there, nothing infinite; ranges are for the log."""
    if values.dtype.kind == "f":
        if column.missing_max == 0 and np.isnan(values).any():
            raise RequestError("a value is missing", where=f"column {column.name!r}",
                               rule="a number in every row")  # fmt: skip
        if np.isinf(values).any():
            raise RequestError("a value is infinite", where=f"column {column.name!r}",
                               rule="a finite number that fits its type")  # fmt: skip
    elif values.dtype == object and column.missing_max == 0 and (values == "").any():
        raise RequestError("a value is missing", where=f"column {column.name!r}", rule="a text in every row")


def _text_bytes(values: pa.ChunkedArray) -> int:
    """How long a column's texts are when each is its own: a short dictionary can stand for very much."""
    kind = values.type
    if pa.types.is_dictionary(kind):
        if not is_text(kind):
            return 0
        total = 0
        for chunk in values.chunks:
            lengths = pc.binary_length(chunk.dictionary.cast(pa.large_string()))
            total += pc.sum(pc.take(lengths, chunk.indices)).as_py() or 0
        return total
    if pa.types.is_string_view(kind):
        # A view begins with its length; several may show the same bytes.
        lengths = [np.frombuffer(chunk.buffers()[1], np.int32)[:: 4][chunk.offset :][: len(chunk)]
                   for chunk in values.chunks]  # fmt: skip
        return int(sum(np.maximum(each, 0).sum(dtype=np.int64) for each in lengths))
    if is_text(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        total = 0
        for chunk in values.chunks:
            total += pc.sum(pc.binary_length(chunk)).as_py() or 0
        return total
    known = is_number(kind) or is_tensor(kind) or pa.types.is_boolean(kind) or pa.types.is_null(kind)
    inner = kind
    while pa.types.is_list(inner) or pa.types.is_large_list(inner) or pa.types.is_fixed_size_list(inner):
        inner = inner.value_type
    if known or (inner != kind and pa.types.is_primitive(inner)):
        return 0
    raise RequestError("a column has a type that is not read", value=str(kind)[:64], where="schema",
                       rule="numbers, booleans, texts, or lists and tensors of numbers")  # fmt: skip


def _look(buffer: pa.Buffer, rows: int) -> None:
    """Goes through the messages without reading their bodies."""
    reader = pa.ipc.MessageReader.open_stream(buffer)
    left = rows
    for number in range(_MESSAGES + 1):
        try:
            message = reader.read_next_message()
        except StopIteration:
            return
        if number == _MESSAGES:
            break
        kind, length, compressed = _facts(message.metadata.to_pybytes())
        if compressed:
            raise RequestError("compressed batches are not read", where=f"message {number}",
                               fix="send them as they are, or compress the whole body (Content-Encoding)",
                               rule="the streaming format, uncompressed")  # fmt: skip
        if kind == _BATCH:
            left -= length
        if left < 0 or not 0 <= length <= rows:
            raise RequestError("the stream has too many rows", status=413, where=f"message {number}",
                               rule=f"at most {rows}")  # fmt: skip
    raise RequestError("the stream has too many messages", status=413, where="body",
                       rule=f"at most {_MESSAGES}")  # fmt: skip


def _facts(metadata: bytes) -> tuple[int, int, bool]:
    """Of a message's flatbuffer: which kind it is, its rows, whether its body is compressed."""
    message = _Flat(metadata, struct.unpack_from("<I", metadata, 0)[0])
    kind = message.number(1, "<B")
    if kind not in (_BATCH, _DICTIONARY):
        return kind, 0, False
    header = message.table(2)
    if header is not None and kind == _DICTIONARY:
        header = header.table(1)
    if header is None:
        raise ValueError("a batch without a header")
    return kind, header.number(0, "<q"), header.table(3) is not None


class _Flat:
    """A table of a flatbuffer; whatever points outside of it raises `struct.error`."""

    def __init__(self, data: bytes, at: int) -> None:
        self._data = data
        self._at = at
        self._fields = at - struct.unpack_from("<i", data, at)[0]

    def _field(self, index: int) -> int:
        if self._fields < 0:
            raise struct.error("a table's fields lie before the message")
        size = struct.unpack_from("<H", self._data, self._fields)[0]
        place = 4 + 2 * index
        return struct.unpack_from("<H", self._data, self._fields + place)[0] if place < size else 0

    def number(self, index: int, code: str) -> Any:
        offset = self._field(index)
        return struct.unpack_from(code, self._data, self._at + offset)[0] if offset else 0

    def table(self, index: int) -> _Flat | None:
        offset = self._field(index)
        if not offset:
            return None
        at = self._at + offset
        return _Flat(self._data, at + struct.unpack_from("<I", self._data, at)[0])
