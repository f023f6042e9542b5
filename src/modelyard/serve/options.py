"""How a service is to run: where its state, its store and its keys are, what it answers for, its limits."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from modelyard.core.errors import ServeError
from modelyard.core.names import NAME_RULE, did_you_mean, is_name
from modelyard.serve.access.tls import Tls

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
    head: int = 65_536
    """Bytes of a request's line and headers (431 beyond, as with more than 100 headers)."""
    ratio: int = 100
    """How many times larger than its compressed form a body may be, beyond its first MiB."""
    wait_seconds: float = 5.0
    """Longest time that a request may be expected to wait for its model; beyond, it gets 503 at once."""
    load_seconds: float = 10.0
    """Longest time that a request waits for its endpoint to be loaded; then it gets 503."""
    header_seconds: float = 10.0
    """Time a client has to send its request's head, the first after connecting, the next after an answer."""
    body_seconds: float = 30.0
    """Time a client has to send its request's body."""


@dataclass(frozen=True, slots=True)
class OwnLimits:
    """The limits of one endpoint, where they are not those of all."""

    queue: int | None = None
    batch: int | None = None
    wait_seconds: float | None = None

    def over(self, limits: Limits) -> Limits:
        """The limits of all, with these in their places."""
        own = {key: value for key, value in asdict(self).items() if value is not None}
        return replace(limits, **own)

    @staticmethod
    def read(endpoint: str, value: Mapping[str, Any]) -> OwnLimits:
        """The limits from JSON; raises `ServeError` with "did you mean" for a key that is none."""
        known = [item.name for item in fields(OwnLimits)]
        for key in value:
            if key not in known:
                raise ServeError(f"the limit of endpoint {endpoint!r} is not known", value=key,
                                 rule="one of " + ", ".join(known), fix=did_you_mean(key, known))  # fmt: skip
        return OwnLimits(**value)


@dataclass(frozen=True, slots=True)
class LogOptions:
    """What the prediction log keeps, and how often it writes."""

    rows: int = 16_384
    """Rows of one segment; a full one is written at once."""
    seconds: float = 1.0
    """Age at which a segment that is not full is written."""
    pending_bytes: int = 64 << 20
    """Bytes of requests and answers that may wait for the disk; beyond, rows are dropped and counted."""
    sample: float = 1.0
    """Share of the records that are kept; the metrics count all of them."""
    input_bytes: int = 1 << 20
    """Bytes a second of inputs over 4 KiB an item; rows beyond are logged without them, and counted."""
    keep_private: bool = False
    """Whether columns of privacy class `personal` or `sensitive` are logged."""


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """Everything a serving process needs to know.

    `state` is the process's own folder (pid, log, routing snapshot, predictions, feedback); `root` is the
    store's. `records` and `objects` are the store's URLs where they are not under `root`; `keys` is the
    folder with the public keys that may sign releases (the store's own when `None`). `port` 0 takes a
    free one.

    A `host` that is not loopback is refused without a certificate and its key, unless `exposed` says that
    open text is meant, and it answers only requests with a token. `tokens` asks for them on loopback too.
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
    tls_certificate: Path | None = None
    """The certificate chain (PEM) that is shown to clients."""
    tls_key: Path | None = None
    """Its private key (PEM, without a password, readable by its owner only)."""
    tokens: bool = False
    grpc_port: int | None = None
    """Where the protocol is answered over gRPC as well, on the same host; all workers share the port."""
    access_log: bool = False
    """Whether each request is a line in the log: method, route, status, seconds, ids; never a body."""
    poll: float = 0.25
    """Seconds between two looks at the store."""
    threads: int = 1
    """Threads that one call of the runtime may use."""
    drain: float = 10.0
    """Seconds that answers in work get to finish on SIGTERM."""
    eager: int = 64
    """So many endpoints, in their order, are loaded at the start; the others when first asked for."""
    pinned: tuple[str, ...] = ()
    """Endpoints that are loaded at the start whatever their place, and never evicted."""
    memory_bytes: int | None = None
    """What the models in one worker's memory may hold, as measured; beyond, those least worth it are
    evicted. Without it three quarters of what the machine or its container has, shared by the workers;
    0 evicts nothing."""
    limits: Limits = field(default_factory=Limits)
    own: Mapping[str, OwnLimits] = field(default_factory=dict)
    """Limits of single endpoints, by name."""
    log: LogOptions = field(default_factory=LogOptions)

    def __post_init__(self) -> None:
        if not self.endpoints:
            raise ServeError("there is nothing to serve", rule="name at least one endpoint")
        for name in self.endpoints:
            if not is_name(name):
                raise ServeError("the endpoint's name is wrong", value=name, rule=NAME_RULE)
        if len(set(self.endpoints)) != len(self.endpoints):
            raise ServeError("an endpoint is named twice", value=list(self.endpoints), rule="each name once")
        self._check_residency()
        if not 0 <= self.port <= 65_535:
            raise ServeError("the port is wrong", value=self.port, rule="0 (any free one) to 65535")
        if self.grpc_port is not None and (not 1 <= self.grpc_port <= 65_535 or self.grpc_port == self.port):
            raise ServeError("the gRPC port is wrong", value=self.grpc_port,
                             rule="1 to 65535, another than the port of HTTP")  # fmt: skip
        if not 1 <= self.workers <= 256:
            raise ServeError("the number of workers is wrong", value=self.workers, rule="1 to 256")
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ServeError("a certificate and its private key go together",
                             rule="both tls_certificate and tls_key, or neither")  # fmt: skip
        if not self.local and self.tls is None and not self.exposed:
            raise ServeError(
                "other machines would reach the service in open text",
                value=self.host,
                rule="127.0.0.1 or ::1, or a certificate with its key (tls_certificate, tls_key)",
                fix="put a gateway that speaks TLS before it and pass exposed=True (--exposed) to allow it",
            )
        if not 8_192 <= self.limits.head <= 1 << 20:
            raise ServeError("the limit of the head is wrong", value=self.limits.head, rule="8192 to 1048576")

    def _check_residency(self) -> None:
        for what, names in (("pinned", self.pinned), ("own", self.own)):
            for name in names:
                if name not in self.endpoints:
                    raise ServeError(f"the endpoint in {what!r} is none of the service's", value=name,
                                     rule="one of its endpoints",
                                     fix=did_you_mean(name, self.endpoints))  # fmt: skip
        for name, own in self.own.items():
            for key, value in asdict(own).items():
                if value is not None and not value > 0:
                    raise ServeError(f"the {key} of endpoint {name!r} is wrong", value=value,
                                     rule="more than 0")  # fmt: skip
        if self.eager < 0:
            raise ServeError("the number of endpoints loaded at the start is wrong", value=self.eager,
                             rule="0 or more")  # fmt: skip
        if self.memory_bytes is not None and self.memory_bytes < 0:
            raise ServeError("the memory of the models is wrong", value=self.memory_bytes,
                             rule="bytes, 0 for no limit")  # fmt: skip

    def limits_of(self, endpoint: str) -> Limits:
        """What holds for one endpoint."""
        own = self.own.get(endpoint)
        return self.limits if own is None else own.over(self.limits)

    @property
    def local(self) -> bool:
        """Whether only this machine can reach the service."""
        return _address(self.host).is_loopback

    @property
    def tls(self) -> Tls | None:
        """The certificate and key, `None` where the service speaks plain HTTP."""
        if self.tls_certificate is None or self.tls_key is None:
            return None
        return Tls(self.tls_certificate, self.tls_key)

    @property
    def needs_token(self) -> bool:
        """Whether a request without a token is refused."""
        return self.tokens or not self.local

    def to_json(self) -> dict[str, Any]:
        paths = {name: _text(getattr(self, name)) for name in _PATHS}
        return {"format": FORMAT, **asdict(self), **paths, "endpoints": list(self.endpoints),
                "pinned": list(self.pinned)}  # fmt: skip

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> ServeOptions:
        if value.get("format") != FORMAT:
            raise ServeError("the service's options are of another version", value=value.get("format"))
        known = {item.name: value[item.name] for item in fields(ServeOptions) if item.name in value}
        known |= {name: Path(known[name]) for name in _PATHS if known.get(name) is not None}
        known |= {
            "endpoints": tuple(known["endpoints"]),
            "pinned": tuple(known.get("pinned", ())),
            "own": {name: OwnLimits.read(name, own) for name, own in known.get("own", {}).items()},
            "limits": Limits(**known["limits"]),
            "log": LogOptions(**known["log"]),
        }
        return ServeOptions(**known)


_PATHS = ("state", "root", "keys", "tls_certificate", "tls_key")


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    try:
        return ipaddress.ip_address("127.0.0.1" if host == "localhost" else host)
    except ValueError:
        raise ServeError(
            "the host is no address", value=host, rule="an IP address such as 127.0.0.1 or 0.0.0.0"
        ) from None
