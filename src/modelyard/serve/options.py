"""How a service is to run: where its state, its store and its keys are, what it answers for, its limits."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from modelyard.core.errors import ServeError
from modelyard.core.names import NAME_RULE, is_name

FORMAT = 1
"""Version of the stored form; raise it when an older reader would misread a field."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one request may ask for; anything larger is refused before memory is taken for it."""

    body: int = 64 << 20
    """Bytes of a request's body (413 beyond)."""
    elements: int = 16 << 20
    """Elements of one tensor."""
    rows: int = 65_536
    """Items of one request."""
    queue: int = 4_096
    """Items that may wait for one release; beyond, the answer is 503 with Retry-After."""
    batch: int = 64
    """Items that one call of the runtime gets at most, unless a single request holds more."""
    header_seconds: float = 10.0
    """Time a client has to send its request's head."""
    body_seconds: float = 30.0
    """Time a client has to send its request's body."""


@dataclass(frozen=True, slots=True)
class LogOptions:
    """What the prediction log keeps, and how often it writes."""

    rows: int = 16_384
    """Rows of one segment; a full one is written at once."""
    seconds: float = 1.0
    """Age at which a segment that is not full is written."""
    pending_bytes: int = 64 << 20
    """Bytes of requests and answers that may wait for the disk; beyond, rows are dropped and counted."""
    keep_private: bool = False
    """Whether columns of privacy class `personal` or `sensitive` are logged."""


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """Everything a serving process needs to know.

    `state` is the process's own folder (pid, log, routing snapshot, predictions, feedback); `root` is the
    store's. `records` and `objects` are the store's URLs where they are not under `root`; `keys` is the
    folder with the public keys that may sign releases (the store's own when `None`). `port` 0 takes a
    free one. A `host` that is not loopback is refused unless `exposed` says that this is meant.
    """

    state: Path
    root: Path
    endpoints: tuple[str, ...]
    host: str = "127.0.0.1"
    port: int = 8080
    workers: int = 1
    records: str | None = None
    objects: str | None = None
    keys: Path | None = None
    exposed: bool = False
    poll: float = 0.25
    """Seconds between two looks at the store."""
    threads: int = 1
    """Threads that one call of the runtime may use."""
    drain: float = 10.0
    """Seconds that answers in work get to finish on SIGTERM."""
    limits: Limits = field(default_factory=Limits)
    log: LogOptions = field(default_factory=LogOptions)

    def __post_init__(self) -> None:
        if not self.endpoints:
            raise ServeError("there is nothing to serve", rule="name at least one endpoint")
        for name in self.endpoints:
            if not is_name(name):
                raise ServeError("the endpoint's name is wrong", value=name, rule=NAME_RULE)
        if len(set(self.endpoints)) != len(self.endpoints):
            raise ServeError("an endpoint is named twice", value=list(self.endpoints), rule="each name once")
        if not 0 <= self.port <= 65_535:
            raise ServeError("the port is wrong", value=self.port, rule="0 (any free one) to 65535")
        if not 1 <= self.workers <= 256:
            raise ServeError("the number of workers is wrong", value=self.workers, rule="1 to 256")
        address = _address(self.host)
        if not address.is_loopback and not self.exposed:
            raise ServeError(
                "the service would be open to other machines, without a password",
                value=self.host,
                rule="127.0.0.1 or ::1, unless it is meant",
                fix="put a gateway before it and pass exposed=True (--exposed) to allow it",
            )

    def to_json(self) -> dict[str, Any]:
        paths = {"state": str(self.state), "root": str(self.root)}
        keys = None if self.keys is None else str(self.keys)
        return {"format": FORMAT, **asdict(self), **paths, "endpoints": list(self.endpoints), "keys": keys}

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> ServeOptions:
        if value.get("format") != FORMAT:
            raise ServeError("the service's options are of another version", value=value.get("format"))
        known = {item.name: value[item.name] for item in fields(ServeOptions) if item.name in value}
        keys = known.get("keys")
        known |= {
            "state": Path(known["state"]),
            "root": Path(known["root"]),
            "endpoints": tuple(known["endpoints"]),
            "keys": None if keys is None else Path(keys),
            "limits": Limits(**known["limits"]),
            "log": LogOptions(**known["log"]),
        }
        return ServeOptions(**known)


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    try:
        return ipaddress.ip_address("127.0.0.1" if host == "localhost" else host)
    except ValueError:
        raise ServeError(
            "the host is no address", value=host, rule="an IP address such as 127.0.0.1 or 0.0.0.0"
        ) from None
