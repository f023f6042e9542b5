"""The tokens of one service: a file that only its owner can read, `<state>/tokens.json`."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import msgspec

from modelyard.core.errors import ModelyardError, ServeError
from modelyard.core.files import file_lock, write_atomic
from modelyard.core.names import did_you_mean
from modelyard.serve.access.token import Token

FORMAT = 1
"""Version of the file; raise it when an older reader would misread a field."""


def token_path(state: Path) -> Path:
    """Where a service keeps its tokens."""
    return state / "tokens.json"


def read_tokens(path: Path) -> tuple[Token, ...]:
    """The tokens, none when there is no file.

    Raises `ServeError` when the file can be read by others than its owner, or is none that we wrote: a
    service must not start with fewer rules than its owner believes.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise ServeError("the tokens cannot be read", value=error.strerror, where=str(path)) from error
    with os.fdopen(handle, "rb") as file:
        mode = os.fstat(file.fileno()).st_mode & 0o777
        if mode & 0o077:
            raise ServeError("others can read or change the tokens", value=f"{mode:o}", rule="mode 600",
                             where=str(path), fix=f"chmod 600 {path}")  # fmt: skip
        data = file.read()
    try:
        value = msgspec.json.decode(data)
        if value["format"] != FORMAT:
            raise ServeError("the tokens are of another version", value=value["format"], where=str(path))
        tokens = tuple(Token.from_json(item) for item in value["tokens"])
    except (msgspec.DecodeError, KeyError, TypeError, ValueError) as error:
        raise ServeError("the file of tokens is damaged", value=type(error).__name__, where=str(path),
                         fix="restore it, or remove it and make new tokens")  from None  # fmt: skip
    names = [token.name for token in tokens]
    if len(set(names)) != len(names):
        raise ServeError("a token's name is there twice", where=str(path), rule="each name once")
    return tokens


def add_token(path: Path, token: Token) -> None:
    """Adds a token; raises `ServeError` when its name is taken."""

    def change(tokens: tuple[Token, ...]) -> tuple[Token, ...]:
        if token.name in {known.name for known in tokens}:
            raise ServeError("there is a token of this name", value=token.name, rule="each name once",
                             fix="choose another name, or remove the old token first")  # fmt: skip
        return (*tokens, token)

    _change(path, change)


def remove_token(path: Path, name: str) -> None:
    """Removes a token; a running service refuses it within a second. Raises `ServeError` for no such name."""

    def change(tokens: tuple[Token, ...]) -> tuple[Token, ...]:
        if name not in {known.name for known in tokens}:
            raise ServeError("there is no such token", value=name,
                             fix=did_you_mean(name, [known.name for known in tokens]))  # fmt: skip
        return tuple(known for known in tokens if known.name != name)

    _change(path, change)


def _change(path: Path, change: Callable[[tuple[Token, ...]], tuple[Token, ...]]) -> None:
    with file_lock(path.with_suffix(".lock"), wait=10.0, what="the file of tokens"):
        tokens = change(read_tokens(path))
        value = {"format": FORMAT, "tokens": [token.to_json() for token in tokens]}
        write_atomic(path, msgspec.json.format(msgspec.json.encode(value)), mode=0o600)


class TokenFile:
    """The tokens as they are now; looks at the file again when it has changed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp: tuple[int, int, int] | None = None
        self._tokens: dict[str, Token] = {}
        self.refresh()

    @property
    def tokens(self) -> dict[str, Token]:
        """The tokens by name, as they were at the last refresh."""
        return self._tokens

    def refresh(self) -> ModelyardError | None:
        """Reads the file if it changed; the error when that fails, the tokens stay as they were then."""
        try:
            found = self._path.stat()
            stamp = (found.st_ino, found.st_mtime_ns, found.st_size)
        except FileNotFoundError:
            stamp = (0, 0, 0)
        except OSError as error:
            return ServeError("the tokens cannot be read", value=error.strerror, where=str(self._path))
        if stamp == self._stamp:
            return None
        first = self._stamp is None
        self._stamp = stamp
        try:
            self._tokens = {token.name: token for token in read_tokens(self._path)}
        except ModelyardError as error:
            if first:
                raise
            return error
        return None
