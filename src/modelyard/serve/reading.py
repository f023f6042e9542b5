"""The prediction log and the feedback as tables, for whoever watches an endpoint."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from pathlib import Path

import orjson
import pyarrow as pa
import pyarrow.compute as pc

from modelyard.serve.feedback import feedback_path
from modelyard.serve.journal import JOURNAL
from modelyard.serve.segment import read_segment

_LOG = logging.getLogger("modelyard.serve")
_TIME = pa.timestamp("us", tz="UTC")

_COLUMNS = pa.schema(
    [
        ("id", pa.string()),
        ("time", _TIME),
        ("endpoint", pa.string()),
        ("release", pa.string()),
        ("version", pa.string()),
        ("arm", pa.string()),
        ("outcome", pa.string()),
        ("latency", pa.float64()),
        ("breaches", pa.list_(pa.string())),
    ]
)

_FEEDBACK = pa.schema([("id", pa.string()), ("time", _TIME), ("label", pa.string()), ("value", pa.float64())])


def read_predictions(
    state: Path,
    endpoint: str,
    *,
    since: datetime | float | None = None,
    until: datetime | float | None = None,
) -> pa.Table:
    """The prediction log of an endpoint as one table in the order of time, `since <= time < until`.

    Times are seconds since 1970 or aware datetimes. Segments of releases with different columns are put
    together by name (missing ones are null). A segment that a crash left unfinished is not read. No log
    at all gives a table of no rows with the columns that every record has.
    """
    tables = [_COLUMNS.empty_table()]
    for path in _segments(state / "predictions" / endpoint):
        table = _read(path)
        if table is not None:
            tables.append(_within(table, since, until))
    whole = pa.concat_tables(
        [tables[0], *(t for t in tables[1:] if t.num_rows)], promote_options="permissive"
    )
    return whole.sort_by("time")


def read_feedback(state: Path, endpoint: str) -> pa.Table:
    """The feedback of an endpoint: `id`, `time`, and `label` (string) or `value` (float64), the other null.

    A line that a crash cut short is left out. Of several for one id all are given, in order of arrival.
    """
    path = feedback_path(state, endpoint)
    rows = []
    for line in path.read_bytes().split(b"\n") if path.exists() else ():
        try:
            value = orjson.loads(line)
            row = {
                "id": str(value["id"]),
                "time": int(value["time"] * 1e6),
                "label": value.get("label"),
                "value": value.get("value"),
            }
        except (ValueError, TypeError, KeyError, AttributeError):
            continue
        rows.append(row)
    return pa.Table.from_pylist(rows, schema=_FEEDBACK)


def _segments(folder: Path) -> list[Path]:
    """The segments in the order of time; one that is there in both formats is being finished."""
    found = {path.stem: path for path in folder.glob(f"[!.]*{JOURNAL}")}
    found |= {path.stem: path for path in folder.glob("[!.]*.parquet")}
    return [found[stem] for stem in sorted(found)]


def _read(path: Path) -> pa.Table | None:
    try:
        return read_segment(path)
    except FileNotFoundError:
        # It was finished since the folder was looked at.
        return _read(path.with_suffix(".parquet")) if path.suffix == JOURNAL else None
    except (OSError, pa.ArrowException) as error:
        _LOG.warning("the segment %s of the prediction log is not read: %s", path.name, error)
        return None


def _within(table: pa.Table, since: datetime | float | None, until: datetime | float | None) -> pa.Table:
    if since is not None:
        table = table.filter(pc.greater_equal(table["time"], _scalar(since)))
    if until is not None:
        table = table.filter(pc.less(table["time"], _scalar(until)))
    return table


def _scalar(time: datetime | float) -> pa.Scalar:
    value = time if isinstance(time, datetime) else datetime.fromtimestamp(time, UTC)
    if value.tzinfo is None:
        raise ValueError("a time without its zone says nothing; give an aware datetime")
    return pa.scalar(value, _TIME)
