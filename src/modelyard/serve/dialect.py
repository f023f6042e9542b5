"""What the HTTP door needs of a protocol that is not the Open Inference Protocol, so that each is one file.

A dialect says which requests are its own. `App` then admits, unpacks and reads the body, routes it, asks
the plane, and sends what the dialect writes; refusals are the same for all.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import NamedTuple, Protocol, TypeAlias

from modelyard.core.spec import Tensors
from modelyard.serve.exchange import Headers, Written
from modelyard.serve.options import Limits
from modelyard.serve.pool import Served
from modelyard.serve.router import Endpoint


class Spoken(Protocol):
    """One request that was read, before it is known which release answers it."""

    @property
    def id(self) -> str:
        """The client's id, empty for none."""
        ...

    @property
    def key(self) -> str:
        """What routing sticks to, empty for none."""
        ...

    def tensors(self, served: Served) -> tuple[Tensors, int]:
        """The inputs of this release and the number of items; raises `RequestError` naming the field."""
        ...

    def write(self, endpoint: str, served: Served, identity: str, outputs: Tensors) -> Written:
        """The answer's body; must not raise for what a model gave."""
        ...


Read: TypeAlias = Callable[[bytes, Headers, Limits], Spoken]
"""Reads a body; raises `RequestError` naming the field."""


class Ask(NamedTuple):
    """A request for a prediction: of which endpoint and version (`None`: as its policy says), how read."""

    endpoint: str
    version: str | None
    read: Read


class Tell(NamedTuple):
    """A request that is answered from what is known of an endpoint."""

    endpoint: str
    version: str | None
    write: Callable[[Endpoint, Served], Written]


class Dialect(Protocol):
    """One protocol. Called for requests whose path none of the service's own routes takes."""

    def route(
        self, method: str, parts: list[str], headers: Headers, endpoints: Collection[str]
    ) -> Ask | Tell | None:
        """What the request asks for, `None` when it is not this protocol's; raises `RequestError` when it
        is, and cannot be answered. `endpoints` are all names, those that are in memory first."""
        ...
