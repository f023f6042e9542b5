"""Which role a request of the HTTP door needs, and which web pages may make one."""

from __future__ import annotations

import ipaddress
from typing import Literal
from urllib.parse import urlsplit

from modelyard.core.errors import RequestError
from modelyard.serve.access.token import Role
from modelyard.serve.exchange import Headers

_OPEN = frozenset({"/v2/health/live", "/v2/health/ready", "/ping"})
_OPERATE = frozenset({"/metrics", "/v2/health"})


def role_of(method: str, path: str) -> Role | Literal["open", "any"]:
    """The role that a path needs, whether or not it leads anywhere; `any` token, or none (`open`).

    >>> role_of("POST", "/v2/models/a/infer"), role_of("GET", "/v2/models/a"), role_of("GET", "/metrics")
    ('predict', 'any', 'operate')
    >>> role_of("POST", "/feedback/a"), role_of("POST", "/v2/repository/models/a/load")
    ('feedback', 'operate')
    """
    if path in _OPEN:
        return "open"
    if path in _OPERATE or path.startswith("/v2/repository/models/"):
        return "operate"
    if path.startswith("/feedback/"):
        return "feedback"
    if method in ("GET", "HEAD") or path == "/v2/repository/index":
        return "any"
    return "predict"


def check_origin(headers: Headers, *, local: bool = False) -> None:
    """Refuses what a browser sends on behalf of another site's page: it needs no token on this machine.

    With `local` the `Host` must be an address or `localhost` too, since a page can make its own name lead
    here. Raises `RequestError` 403.
    """
    host = headers("host") or ""
    site = headers("sec-fetch-site")
    origin = headers("origin")
    foreign = site in ("cross-site", "same-site")
    if origin is not None and origin.lower().partition("://")[2] != host.lower():
        foreign = True
    if foreign:
        raise RequestError("a page of another origin must not ask for this", status=403, where="Origin")
    if local and host and not _is_address(host):
        raise RequestError("the host is no address", status=403, where="Host", value=host[:128],
                           rule="an IP address or localhost, where no token is asked for")  # fmt: skip


def _is_address(host: str) -> bool:
    try:
        name = urlsplit(f"//{host}").hostname or ""
        return name == "localhost" or bool(ipaddress.ip_address(name))
    except ValueError:
        return False
