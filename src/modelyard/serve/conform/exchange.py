"""One request and what came back: the evidence that every case shows."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

_SECRET = ("authorization", "cookie", "x-api-key", "proxy-authorization")
_SHOWN_BODY = 1_200


@dataclass(frozen=True, slots=True)
class Request:
    """What is sent; `path` stands behind the server's URL and begins with a slash."""

    method: str
    path: str
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Response:
    """What came back; header names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    seconds: float

    @property
    def ok(self) -> bool:
        return self.status == 200

    @property
    def kind(self) -> str:
        """The media type without its parameters."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()


@dataclass(frozen=True, slots=True)
class Exchange:
    """A request with its response, or with the reason why there is none."""

    request: Request
    response: Response | None
    error: str = ""

    @property
    def status(self) -> int:
        """The HTTP status; 0 when nothing came back."""
        return 0 if self.response is None else self.response.status

    def said(self) -> str:
        """In a few words what came back."""
        if self.response is None:
            return f"no answer ({self.error})"
        text = self.response.body[:160].decode("utf-8", "replace").replace("\n", " ")
        return f"{self.response.status} {text}".rstrip()

    def to_json(self, url: str) -> dict[str, Any]:
        response = self.response
        return {
            "curl": curl(url, self.request),
            "status": self.status,
            "headers": {} if response is None else dict(response.headers),
            "body": "" if response is None else response.body[:_SHOWN_BODY].decode("utf-8", "replace"),
            "error": self.error,
        }


def curl(url: str, request: Request) -> str:
    """A shell line that sends the same request; values of secret headers are left out.

    >>> print(curl("http://a:1", Request("POST", "/v2/models/m/infer", b'{"inputs":[]}')))
    curl -si -X POST http://a:1/v2/models/m/infer --data-binary '{"inputs":[]}'
    """
    if request.method == "GRPC":
        message = shlex.quote(request.body.decode())
        return f"grpcurl -plaintext -d {message} {request.headers['grpc-address']} {request.path[1:]}"
    parts = ["curl", "-si"]
    if request.method != "GET":
        parts += ["-X", request.method]
    parts.append(shlex.quote(url.rstrip("/") + request.path))
    for name, value in request.headers.items():
        shown = "..." if name.lower() in _SECRET else value
        parts += ["-H", shlex.quote(f"{name}: {shown}")]
    if not request.body:
        return " ".join(parts)
    text = _plain(request.body)
    if text is not None and len(text) <= _SHOWN_BODY:
        return " ".join([*parts, "--data-binary", shlex.quote(text)])
    if text is not None and len(set(text)) <= 4:
        # Deep nesting is one character many times; a shell writes it shorter.
        repeat = f"python3 -c 'print({json.dumps(text[0])}*{len(text)}, end=\"\")'"
        return f"{repeat} | " + " ".join([*parts, "--data-binary", "@-"])
    return f"printf '{_escaped(request.body)}' | " + " ".join([*parts, "--data-binary", "@-"])


def _plain(body: bytes) -> str | None:
    try:
        text = body.decode()
    except UnicodeDecodeError:
        return None
    return text if text.isprintable() else None


def _escaped(body: bytes) -> str:
    """Bytes for the shell's `printf`: printable ones as they are, the others in octal."""
    special = b"'\\%"
    return "".join(chr(b) if 32 <= b < 127 and b not in special else f"\\{b:03o}" for b in body)
