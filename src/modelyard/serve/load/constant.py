"""A constant answer through the service's own HTTP door, and nothing behind it: what the door alone can do.

python -m modelyard.serve.load.constant PORT BYTES
"""

from __future__ import annotations

import asyncio
import sys

import uvloop

from modelyard.core.clock import SYSTEM_CLOCK
from modelyard.core.errors import RequestError
from modelyard.serve.exchange import JSON_TYPE, Headers, Reply
from modelyard.serve.http.door import BACKLOG, HttpDoor
from modelyard.serve.options import Limits
from modelyard.serve.process import bind

_HEADERS = [("content-type", JSON_TYPE)]


class Constant:
    """A `Service` that answers everything with the same JSON text of `size` bytes."""

    guarded = False

    def __init__(self, size: int) -> None:
        self._body = b'"' + b"x" * max(0, size - 2) + b'"'

    def admit(self, method: str, path: str, headers: Headers) -> None:
        """Lets everything in."""

    def check_room(self, path: str) -> None:
        """Has room."""

    def handle(self, method: str, path: str, headers: Headers, body: bytes, reply: Reply) -> None:
        """Answers at once."""
        reply(200, _HEADERS, self._body)

    def refuse(self, error: RequestError, reply: Reply) -> None:
        """Says what the door found wrong."""
        reply(error.status, _HEADERS, b'"refused"')


async def serve(port: int, size: int) -> None:
    """Serves on the loopback address until the process ends."""
    await HttpDoor(Constant(size), Limits(), SYSTEM_CLOCK).open(bind("127.0.0.1", port, BACKLOG))
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]), int(sys.argv[2])))
