"""`Guard`: whether a request's `Authorization` allows what it asks for."""

from __future__ import annotations

import logging
from pathlib import Path

from modelyard.core.clock import Clock
from modelyard.core.errors import RequestError, ServeError
from modelyard.serve.access.bucket import Bucket
from modelyard.serve.access.token import Role, Token, hash_of, name_in
from modelyard.serve.access.token_file import TokenFile, token_path

REFRESH_SECONDS = 0.5
"""How often the file of tokens is looked at, at most: a removed token is refused after this long."""

_LONGEST = 512
_LOG = logging.getLogger("modelyard.serve")


class Guard:
    """Holds requests against the tokens of a service. One for each process, on the event loop's thread.

    `share` is the part of each token's rate that this process gives out: one of N workers gives out 1/N.
    """

    def __init__(self, file: TokenFile, clock: Clock, *, share: float = 1.0) -> None:
        self._file = file
        self._clock = clock
        self._share = share
        self._refreshed = clock.monotonic()
        self._buckets: dict[str, tuple[Token, Bucket]] = {}

    def allow(self, authorization: str | None, role: Role | None) -> Token:
        """The token that allows it; any token will do when `role` is `None`.

        Raises `RequestError` 401 without a known token, 403 when it has not that role, and 429 with the
        time to wait when its rate is used up. No message repeats what was sent.
        """
        now = self._clock.monotonic()
        if now - self._refreshed >= REFRESH_SECONDS:
            self._refresh(now)
        token = self._known(authorization)
        if role is not None and role not in token.roles:
            raise RequestError("the token does not allow this", status=403, where="Authorization",
                               rule=f"a token with the role {role}")  # fmt: skip
        if token.rate is not None:
            wait = self._bucket(token, now).take(now)
            if wait:
                raise RequestError("too many requests with this token", status=429,
                                   rule=f"{token.rate:g} a second", retry_after=wait)  # fmt: skip
        return token

    def _known(self, authorization: str | None) -> Token:
        if authorization is None:
            raise RequestError("a token is needed", status=401, where="Authorization", rule="Bearer TOKEN")
        scheme, _, text = authorization.partition(" ")
        text = text.strip()
        if scheme.lower() != "bearer" or not 1 <= len(text) <= _LONGEST:
            raise RequestError("this is no bearer token", status=401, where="Authorization",
                               rule="Bearer TOKEN")  # fmt: skip
        token = self._file.tokens.get(name_in(text))
        if token is None:
            hash_of(text)  # a name that is not known must not be refused faster than one that is.
        elif token.matches(text):
            return token
        raise RequestError("the token is not known", status=401, where="Authorization")

    def _bucket(self, token: Token, now: float) -> Bucket:
        found = self._buckets.get(token.name)
        if found is None or found[0] != token:
            rate = (token.rate or 1.0) * self._share
            found = (token, Bucket(rate, max(1.0, token.burst * self._share), now))
            self._buckets[token.name] = found
        return found[1]

    def _refresh(self, now: float) -> None:
        self._refreshed = now
        error = self._file.refresh()
        if error is not None:
            _LOG.error("the tokens are left as they were: %s", error)
        for name in self._buckets.keys() - self._file.tokens.keys():
            del self._buckets[name]


def open_guard(state: Path, clock: Clock, *, needed: bool, workers: int = 1) -> Guard | None:
    """The guard of a service, `None` where no token is needed.

    Raises `ServeError` when tokens are needed and there is none: nobody could be let in.
    """
    if not needed:
        return None
    file = TokenFile(token_path(state))
    if not file.tokens:
        raise ServeError(
            "there is no token, and this service answers only those who have one",
            where=str(token_path(state)),
            fix="make one first: modelyard tokens add NAME --role predict",
        )
    return Guard(file, clock, share=1.0 / workers)
