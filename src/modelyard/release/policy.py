"""Which release answers which request: three traffic policies and the pure rule that routes by them.

Routing is sticky: a key always lands on the same side, in every process, because its place between 0
and 1 is a hash of salt and key. It is monotone too: raising the fraction only moves keys from the
champion to the candidate.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

from modelyard.core.digest import Digest, is_digest
from modelyard.core.errors import ReleaseError
from modelyard.core.format import check_format

FORMAT = 1
"""Version of a policy's JSON; raised when an old reader would misread a new policy."""

_BITS = 53


@dataclass(frozen=True, slots=True)
class Single:
    """One release answers everything."""

    kind: ClassVar[str] = "single"
    release: Digest

    def __post_init__(self) -> None:
        _check_digests(release=self.release)

    @property
    def champion(self) -> Digest:
        """The release that clients get unless they are part of a trial."""
        return self.release

    @property
    def releases(self) -> tuple[Digest, ...]:
        """Every release that must be loaded for this policy."""
        return (self.release,)

    def to_json(self) -> dict[str, Any]:
        return {"format": FORMAT, "kind": self.kind, "release": self.release}


@dataclass(frozen=True, slots=True)
class Canary:
    """The candidate answers a fraction of the keys (0 to 1), the champion the rest.

    The salt decides which keys; another salt draws another, independent part of the clients.
    """

    kind: ClassVar[str] = "canary"
    champion: Digest
    candidate: Digest
    fraction: float
    salt: str = ""

    def __post_init__(self) -> None:
        _check_digests(champion=self.champion, candidate=self.candidate)
        _check_differ(self.champion, self.candidate)
        if not (math.isfinite(self.fraction) and 0.0 <= self.fraction <= 1.0):
            raise ReleaseError("the canary's fraction is wrong", value=self.fraction, rule="0 to 1")

    @property
    def releases(self) -> tuple[Digest, ...]:
        """Every release that must be loaded for this policy."""
        return (self.champion, self.candidate)

    def to_json(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "kind": self.kind,
            "champion": self.champion,
            "candidate": self.candidate,
            "fraction": self.fraction,
            "salt": self.salt,
        }


@dataclass(frozen=True, slots=True)
class Shadow:
    """The champion answers everything; the candidate is asked too and its answers are only logged."""

    kind: ClassVar[str] = "shadow"
    champion: Digest
    candidate: Digest

    def __post_init__(self) -> None:
        _check_digests(champion=self.champion, candidate=self.candidate)
        _check_differ(self.champion, self.candidate)

    @property
    def releases(self) -> tuple[Digest, ...]:
        """Every release that must be loaded for this policy."""
        return (self.champion, self.candidate)

    def to_json(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "kind": self.kind,
            "champion": self.champion,
            "candidate": self.candidate,
        }


Policy: TypeAlias = Single | Canary | Shadow


@dataclass(frozen=True, slots=True)
class Route:
    """Where one request goes: the release that answers, and those that are asked without being heard."""

    answer: Digest
    shadows: tuple[Digest, ...] = ()


def route(policy: Policy, key: str) -> Route:
    """Where the request with this key goes.

    >>> a, b = "sha256:" + "a" * 64, "sha256:" + "b" * 64
    >>> route(Canary(a, b, 0.0), "client-7").answer == a
    True
    >>> route(Shadow(a, b), "client-7").shadows == (b,)
    True
    """
    if isinstance(policy, Canary):
        chosen = policy.candidate if place(policy.salt, key) < policy.fraction else policy.champion
        return Route(chosen)
    if isinstance(policy, Shadow):
        return Route(policy.champion, (policy.candidate,))
    return Route(policy.release)


def place(salt: str, key: str) -> float:
    """Where a key stands between 0 and 1 (1 excluded): 53 bits of SHA-256 over salt and key.

    >>> place("", "a") == place("", "a"), 0.0 <= place("s", "a") < 1.0
    (True, True)
    """
    # The salt's length keeps ("ab", "c") apart from ("a", "bc"); surrogates arrive from bad client headers.
    salted = salt.encode("utf-8", "surrogatepass")
    text = len(salted).to_bytes(8, "big") + salted + key.encode("utf-8", "surrogatepass")
    return (int.from_bytes(hashlib.sha256(text).digest()[:8], "big") >> (64 - _BITS)) / (1 << _BITS)


def policy_from_json(value: Mapping[str, Any]) -> Policy:
    """The policy that `to_json` wrote; raises `ReleaseError` for anything else, a newer format included."""
    found = value.get("format") if isinstance(value, Mapping) else value
    check_format(found, FORMAT, "a traffic policy", ReleaseError)
    try:
        if value["kind"] == "single":
            return Single(str(value["release"]))
        if value["kind"] == "canary":
            return Canary(
                str(value["champion"]),
                str(value["candidate"]),
                float(value["fraction"]),
                str(value["salt"]),
            )
        if value["kind"] == "shadow":
            return Shadow(str(value["champion"]), str(value["candidate"]))
    except (KeyError, TypeError, ValueError) as error:
        raise ReleaseError("a traffic policy is not complete", value=dict(value)) from error
    raise ReleaseError(
        "a traffic policy is of no known kind", value=value["kind"], rule="single, canary or shadow"
    )


def _check_digests(**releases: str) -> None:
    for field, release in releases.items():
        if not is_digest(release):
            raise ReleaseError(
                f"the policy's {field} is not a release digest",
                value=release,
                rule="sha256: and 64 hex digits",
                fix="list the releases with: modelyard releases",
            )


def _check_differ(champion: Digest, candidate: Digest) -> None:
    if champion == candidate:
        raise ReleaseError(
            "champion and candidate are the same release", value=champion, rule="two different releases"
        )
