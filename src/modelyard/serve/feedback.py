"""Feedback by prediction id: what the right answer was, appended to a file that survives a crash."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import orjson

from modelyard.core.clock import Clock
from modelyard.core.errors import RequestError
from modelyard.core.names import did_you_mean
from modelyard.serve.codec.document import read_object
from modelyard.serve.codec.inference import MAX_ID

FORMAT = 1
"""Version of a line; raise it when an older reader would misread one."""

MAX_ITEMS = 65_536


class Feedback(msgspec.Struct, frozen=True, gc=False):
    """The right answer for one prediction: `label` of a classification, `value` of a regression."""

    id: str
    label: str | None
    value: float | None


def parse_feedback(body: bytes, labels: tuple[str, ...]) -> list[Feedback]:
    """Reads `{"feedback": [{"id": ..., "label" | "value": ...}, ...]}`; `labels` are those known, if any.

    Raises `RequestError` naming the item and the field.
    """
    listed = read_object(body).get("feedback")
    if type(listed) is not list or not 1 <= len(listed) <= MAX_ITEMS:
        raise RequestError("the feedback is missing or no list", where="feedback",
                           value=type(listed).__name__, rule=f"1 to {MAX_ITEMS} objects")  # fmt: skip
    return [_item(item, f"feedback[{index}]", labels) for index, item in enumerate(listed)]


def _item(item: object, where: str, labels: tuple[str, ...]) -> Feedback:
    if type(item) is not dict:
        raise RequestError("the feedback is no object", value=type(item).__name__, where=where)
    key = "label" if labels else "value"
    for name in item:
        if name not in ("id", key):
            raise RequestError("the feedback has a field that is not known", value=name, where=where,
                               fix=did_you_mean(str(name), ("id", key)))  # fmt: skip
    identity = item.get("id")
    if type(identity) is not str or not 1 <= len(identity) <= MAX_ID + 16:
        raise RequestError("the prediction's id is missing or no text", value=identity, where=f"{where}.id")
    answer = item.get(key)
    if labels:
        if answer not in labels:
            raise RequestError("the label is not known", value=answer, where=f"{where}.label",
                               fix=did_you_mean(str(answer), labels))  # fmt: skip
        return Feedback(identity, str(answer), None)
    if not isinstance(answer, int | float) or isinstance(answer, bool) or not math.isfinite(answer):
        raise RequestError("the value is no finite number", value=answer, where=f"{where}.value")
    return Feedback(identity, None, float(answer))


def feedback_path(state: Path, endpoint: str) -> Path:
    """Where an endpoint's feedback is kept."""
    return state / "feedback" / f"{endpoint}.jsonl"


def append_feedback(state: Path, endpoint: str, items: Sequence[Feedback], clock: Clock) -> None:
    """Appends the items and returns once they are on disk; several processes may do so at once.

    A line that an earlier crash cut short is closed first, so that it spoils no other. Raises
    `RequestError` 503 when the disk does not take them.
    """
    now = clock.now()
    lines = b"".join(orjson.dumps(_line(item, now), option=orjson.OPT_APPEND_NEWLINE) for item in items)
    path = feedback_path(state, endpoint)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            size = os.fstat(handle).st_size
            if size and os.pread(handle, 1, size - 1) != b"\n":
                lines = b"\n" + lines
            # One write: lines of two processes do not mix.
            if os.write(handle, lines) != len(lines):
                raise OSError("only a part was written")
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        raise RequestError("the feedback cannot be stored", status=503, value=error.strerror or str(error),
                           fix="send it again later", retry_after=5.0) from error  # fmt: skip


def _line(item: Feedback, now: float) -> dict[str, Any]:
    answer = {"value": item.value} if item.label is None else {"label": item.label}
    return {"format": FORMAT, "id": item.id, "time": now, **answer}
