"""SageMaker's bodies: CSV, JSON and JSON lines to plain rows, and labels or predictions back.

Source: Amazon SageMaker, "Common data formats for inference". Cells of a row that is no object are the
contract's features in their order; a tensor takes as many cells as it has elements.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from math import isnan, prod
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson

from modelyard.core.errors import RequestError
from modelyard.core.spec import Tensors
from modelyard.serve.codec.document import read_object

if TYPE_CHECKING:
    from modelyard.data.contract import Column, Contract

CSV_TYPE = "text/csv"
LINES_TYPE = "application/jsonlines"
_FIELD = 1 << 20

Cells = list[Any]


def read_csv(body: bytes, *, limit: int) -> list[Cells]:
    """The cells of at most `limit` lines; a first line of names is still among them."""
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise RequestError("the body is no text in UTF-8", value=f"byte {error.start}", where="body",
                           rule="CSV in UTF-8") from None  # fmt: skip
    rows: list[Cells] = []
    try:
        for row in _lines(text):
            if not row:
                continue
            rows.append(row)
            if len(rows) > limit + 1:
                raise _too_many(limit)
    except csv.Error as error:
        raise RequestError("the body is no CSV", value=str(error)[:120], where=f"line {len(rows) + 1}",
                           rule="cells between commas, texts in double quotes") from None  # fmt: skip
    if not rows:
        raise RequestError("the body has no row", where="body", rule="one line for each row")
    return rows


def read_lines(body: bytes, *, limit: int) -> list[Any]:
    """The values of at most `limit` lines of JSON."""
    rows: list[Any] = []
    for number, line in enumerate(body.split(b"\n", limit + 2), 1):
        if not line.strip():
            continue
        if len(rows) == limit:
            raise _too_many(limit)
        try:
            value = read_object(line)
        except RequestError as error:
            raise RequestError(error.what, status=error.status, value=error.value, rule=error.rule,
                               fix=error.fix, where=f"line {number}") from None  # fmt: skip
        rows.append(_features(value))
    if not rows:
        raise RequestError("the body has no row", where="body", rule="one object a line")
    return rows


def listed(values: object, where: str, *, limit: int) -> list[Any]:
    """The rows of a JSON list: objects, lists of cells, or `{"features": [...]}`."""
    if type(values) is not list or not values:
        raise RequestError("the rows are missing or no list", value=type(values).__name__, where=where,
                           rule="one object, or list of cells, for each row")  # fmt: skip
    if len(values) > limit:
        raise _too_many(limit)
    rows = [_features(value) for value in values]
    for index, row in enumerate(rows):
        if type(row) not in (dict, list):
            raise RequestError("the row is neither an object nor a list", value=type(row).__name__,
                               where=f"{where}[{index}]")  # fmt: skip
    return rows


def named_rows(
    rows: list[Any], contract: Contract, *, header: bool | None, text: bool, limit: int
) -> list[dict[str, Any]]:
    """Rows by column; `header` says whether the first line names the columns, `None` to look.

    Raises `RequestError` naming the row and the column.
    """
    features = contract.features
    names: list[str] | None = None
    if text:
        names, rows = _header(rows, [column.name for column in features], header)
    if not rows or len(rows) > limit:
        raise _too_many(limit) if rows else _no_row()
    order = list(features)
    if names is not None:
        by_name = {column.name: column for column in features}
        order = [by_name[name] for name in names if name in by_name]
    widths = [prod(column.shape or ()) if column.kind == "tensor" else 1 for column in order]
    need = sum(widths)
    made = []
    for index, row in enumerate(rows):
        if type(row) is dict:
            made.append(row)
            continue
        if len(row) != need:
            raise RequestError("the row has the wrong number of cells", value=len(row),
                               where=f"rows[{index}]",
                               rule=f"{need}: " + ", ".join(item.name for item in order[:10]))  # fmt: skip
        made.append(_named(row, index, order, widths, text))
    return made


def write_csv(outputs: Tensors, *, labels: tuple[str, ...]) -> bytes:
    """One line for each row: `label,confidence` of a classification, or the prediction."""
    out = io.StringIO()
    if labels:
        probabilities = outputs["probabilities"]
        best = probabilities.argmax(axis=1)
        confidence = probabilities[np.arange(len(best)), best].tolist()
        rows = zip([labels[top] for top in best.tolist()], confidence, strict=True)
        csv.writer(out, lineterminator="\n").writerows(rows)
    else:
        values = outputs["prediction"].astype(np.float64).reshape(-1).tolist()
        out.writelines(("" if isnan(value) else repr(value)) + "\n" for value in values)
    return out.getvalue().encode("utf-8", "replace")


def write_lines(answer: bytes) -> bytes:
    """Each prediction of a plain rows' answer on a line of its own."""
    predictions = orjson.loads(answer)["predictions"]
    return b"".join(orjson.dumps(item, option=orjson.OPT_APPEND_NEWLINE) for item in predictions)


def _lines(text: str) -> Iterator[list[str]]:
    # A cell may be as long as the body: what bounds it is the limit on bodies.
    if csv.field_size_limit() < _FIELD:
        csv.field_size_limit(_FIELD)
    return csv.reader(io.StringIO(text, newline=""), strict=True)


def _header(rows: list[Cells], known: list[str], header: bool | None) -> tuple[list[str] | None, list[Cells]]:
    first = [cell.strip() for cell in rows[0]]
    found = set(first) >= set(known) if header is None else header
    if not found:
        return None, rows
    twice = next((name for name in first if first.count(name) > 1), None) if len(first) < 10_000 else None
    if twice is not None:
        raise RequestError("a column is given twice", value=twice[:64], where="line 1", rule="each name once")
    unknown = next((name for name in first if name not in known), None)
    if unknown is not None:
        raise RequestError("there is no such column", value=unknown[:64], where="line 1",
                           rule="the contract's features")  # fmt: skip
    return first, rows[1:]


def _named(row: Cells, index: int, order: list[Column], widths: list[int], text: bool) -> dict[str, Any]:
    made: dict[str, Any] = {}
    at = 0
    for column, width in zip(order, widths, strict=True):
        cells = row[at : at + width]
        at += width
        if column.kind == "tensor":
            values = [_number(cell, index, column) if text else cell for cell in cells]
            made[column.name] = _shaped(values, index, column)
        elif text and column.kind in ("number", "integer", "boolean"):
            made[column.name] = _number(cells[0], index, column)
        else:
            made[column.name] = cells[0]
    return made


def _shaped(values: list[Any], index: int, column: Column) -> Any:
    wrong = next((value for value in values if type(value) not in (int, float, bool)), None)
    if wrong is not None or not values:
        raise RequestError(f"column {column.name!r} is wrong", value=wrong, where=f"rows[{index}]",
                           rule="a number in each cell")  # fmt: skip
    try:
        return np.asarray(values).reshape(column.shape or ())
    except (ValueError, OverflowError):
        raise RequestError(f"column {column.name!r} is wrong", where=f"rows[{index}]",
                           rule=f"numbers that fit {column.datatype}") from None  # fmt: skip


def _number(cell: str, index: int, column: Column) -> float | bool | None:
    text = cell.strip()
    if not text:
        return None
    if column.kind == "boolean" and text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        if not text.isascii() or "_" in text:
            raise ValueError(text)  # noqa: TRY301 - Python reads more than a number's text
        return float(text)
    except ValueError:
        raise RequestError(f"column {column.name!r} is wrong", value=cell[:64], where=f"rows[{index}]",
                           rule="a number") from None  # fmt: skip


def _features(value: Any) -> Any:
    if type(value) is dict and len(value) == 1 and type(value.get("features")) is list:
        return value["features"]
    return value


def _too_many(limit: int) -> RequestError:
    return RequestError("the request has too many rows", status=413, where="body", rule=f"at most {limit}")


def _no_row() -> RequestError:
    return RequestError("the body has no row", where="body", rule="one line for each row")
