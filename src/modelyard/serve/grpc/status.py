"""The status of gRPC for the status of HTTP: both doors refuse for the same reasons."""

from __future__ import annotations

from typing import NamedTuple

# Source: https://github.com/grpc/grpc/blob/master/doc/statuscodes.md


class Status(NamedTuple):
    """A status by name, and its number on the wire."""

    name: str
    number: int


OK = Status("OK", 0)
CANCELLED = Status("CANCELLED", 1)
INTERNAL = Status("INTERNAL", 13)
UNAVAILABLE = Status("UNAVAILABLE", 14)
UNIMPLEMENTED = Status("UNIMPLEMENTED", 12)

_INVALID = Status("INVALID_ARGUMENT", 3)
_LATE = Status("DEADLINE_EXCEEDED", 4)
_EXHAUSTED = Status("RESOURCE_EXHAUSTED", 8)
_STATUSES = {
    200: OK,
    400: _INVALID,
    401: Status("UNAUTHENTICATED", 16),
    403: Status("PERMISSION_DENIED", 7),
    404: Status("NOT_FOUND", 5),
    405: UNIMPLEMENTED,
    408: _LATE,
    409: Status("FAILED_PRECONDITION", 9),
    413: _EXHAUSTED,
    415: UNIMPLEMENTED,
    422: _INVALID,
    429: _EXHAUSTED,
    499: CANCELLED,
    500: INTERNAL,
    501: UNIMPLEMENTED,
    503: UNAVAILABLE,
    504: _LATE,
}


def status_of(http: int) -> Status:
    """What a client hears for a status of HTTP.

    >>> status_of(404).name, status_of(429).number, status_of(418).name
    ('NOT_FOUND', 8, 'INVALID_ARGUMENT')
    """
    return _STATUSES.get(http) or (_INVALID if 400 <= http < 500 else INTERNAL)
