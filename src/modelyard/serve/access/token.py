"""`Token`: the right to use a service, known by its hash only.

A token's text is `mdy.NAME.SECRET`, the secret 256 random bits in base64url. It is shown once, when it is
made. What is kept is the SHA-256 of the whole text: a secret of 256 random bits cannot be guessed, so a
slow hash would protect nothing and cost every request.
"""

from __future__ import annotations

import hashlib
import hmac
import math
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

from modelyard.core.errors import ServeError
from modelyard.core.names import NAME_RULE, did_you_mean, is_name

Role: TypeAlias = Literal["predict", "feedback", "operate"]
"""`predict` asks models, `feedback` sends the right answers, `operate` loads, unloads and reads metrics."""

ROLES: tuple[Role, ...] = get_args(Role)
PREFIX = "mdy"
_HASH = "sha256:"


@dataclass(frozen=True, slots=True)
class Token:
    """One token as it is kept: its name, its roles, the hash of its text and its rate limit.

    `rate` is in requests a second, `None` for no limit; up to `burst` requests may come at once.
    """

    name: str
    roles: tuple[Role, ...]
    hash: str
    created: str
    rate: float | None = None
    burst: int = 1

    def __post_init__(self) -> None:
        if not is_name(self.name):
            raise ServeError("the token's name is wrong", value=self.name, rule=NAME_RULE)
        for role in self.roles:
            if role not in ROLES:
                raise ServeError("the role is not known", value=role, fix=did_you_mean(str(role), ROLES))
        if not self.roles or len(set(self.roles)) != len(self.roles):
            raise ServeError("the roles are wrong", value=list(self.roles), rule="one or more, each once")
        if self.rate is not None and not (math.isfinite(self.rate) and self.rate > 0):
            raise ServeError("the rate is wrong", value=self.rate, rule="requests a second, above 0")
        if not 1 <= self.burst <= 1_000_000:
            raise ServeError("the burst is wrong", value=self.burst, rule="1 to 1000000 requests")

    def matches(self, text: str) -> bool:
        """Whether this is the token's text; takes as long for a wrong one as for the right one."""
        return hmac.compare_digest(self.hash, hash_of(text))

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "roles": list(self.roles),
            "hash": self.hash,
            "created": self.created,
            "rate": self.rate,
            "burst": self.burst,
        }

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> Token:
        rate = value["rate"]
        if not str(value["hash"]).startswith(_HASH):
            raise ServeError("the token's hash is of an unknown kind", rule=f"{_HASH}...")
        return Token(
            str(value["name"]),
            tuple(value["roles"]),
            str(value["hash"]),
            str(value["created"]),
            None if rate is None else float(rate),
            int(value["burst"]),
        )


def hash_of(text: str) -> str:
    """The hash under which a token's text is kept."""
    return _HASH + hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def name_in(text: str) -> str:
    """The name inside a token's text, empty when the text is no token.

    >>> name_in("mdy.shop.AbC"), name_in("shop")
    ('shop', '')
    """
    prefix, _, rest = text.partition(".")
    name, dot, _ = rest.partition(".")
    return name if prefix == PREFIX and dot and is_name(name) else ""


def new_token(
    name: str,
    roles: tuple[Role, ...],
    *,
    created: str,
    rate: float | None = None,
    burst: int | None = None,
) -> tuple[Token, str]:
    """A new token and its text, which is nowhere kept. `burst` is a second's worth when it is not given."""
    if not is_name(name):
        raise ServeError("the token's name is wrong", value=name, rule=NAME_RULE)
    text = f"{PREFIX}.{name}.{secrets.token_urlsafe(32)}"
    if burst is None:
        burst = 1 if rate is None or not math.isfinite(rate) else max(1, min(math.ceil(rate), 1_000_000))
    return Token(name, roles, hash_of(text), created, rate, burst), text
