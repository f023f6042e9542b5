"""The process's own log: one JSON object a line, to standard error."""

from __future__ import annotations

import logging
import sys

import orjson

from modelyard.core.clock import iso


class JsonLines(logging.Formatter):
    """Formats a log record as one JSON object."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": iso(record.created),
            "level": record.levelname.lower(),
            "pid": record.process,
            "message": record.getMessage(),
        }
        # What a caller passes as `extra={"fields": {...}}`: facts by name, never a body or a secret.
        line |= getattr(record, "fields", {})
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        return orjson.dumps(line, default=str).decode()


def write_log_lines() -> None:
    """Sends this process's log to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=logging.INFO, handlers=[handler])
