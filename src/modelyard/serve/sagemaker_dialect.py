"""SageMaker's container interface over HTTP: `GET /ping`, `POST /invocations`.

A service with one endpoint needs nothing more; with several, the header
`X-Amzn-SageMaker-Target-Model` names the one that is meant.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from modelyard.core.errors import RequestError
from modelyard.core.spec import Tensors
from modelyard.data.rows import from_rows
from modelyard.serve.codec.document import read_object
from modelyard.serve.codec.inference import MAX_ID, Asked, read_request, write_answer
from modelyard.serve.codec.rows import read_rows, write_rows
from modelyard.serve.codec.sagemaker import (
    CSV_TYPE,
    LINES_TYPE,
    listed,
    named_rows,
    read_csv,
    read_lines,
    write_csv,
    write_lines,
)
from modelyard.serve.dialect import Ask, Spoken, Tell
from modelyard.serve.exchange import BINARY_TYPE, JSON_TYPE, Headers, Written
from modelyard.serve.options import Limits
from modelyard.serve.plane import check_outputs
from modelyard.serve.pool import Served

TARGET = "x-amzn-sagemaker-target-model"
INFERENCE_ID = "x-amzn-sagemaker-inference-id"
HEADER_LENGTH = "inference-header-content-length"
ARROW_TYPE = "application/vnd.apache.arrow.stream"
TRITON_TYPE = "application/vnd.sagemaker-triton.binary+json"

_ANSWERS = (JSON_TYPE, CSV_TYPE, LINES_TYPE)


class SpokenInvocation:
    """A request in rows: CSV, JSON or JSON lines."""

    __slots__ = ("_accept", "_header", "_limit", "_rows", "_text", "id", "key")

    def __init__(
        self, rows: list[Any], accept: str, identity: str, key: str, *, limit: int, text: bool = False,
        header: bool | None = None,
    ) -> None:  # fmt: skip
        self._rows = rows
        self._accept = accept
        self._limit = limit
        self._text = text
        self._header = header
        self.id = identity
        self.key = key

    def tensors(self, served: Served) -> tuple[Tensors, int]:
        """The rows as the contract's features."""
        contract = served.contract
        rows = named_rows(self._rows, contract, header=self._header, text=self._text, limit=self._limit)
        return from_rows(rows, contract), len(rows)

    def write(self, endpoint: str, served: Served, identity: str, outputs: Tensors) -> Written:
        """What `Accept` asks for, by default what came."""
        if self._accept == CSV_TYPE:
            return Written(write_csv(outputs, labels=served.labels), CSV_TYPE + "; charset=utf-8")
        body = write_rows(endpoint, served.digest, served.version, identity, outputs, labels=served.labels)
        return Written(write_lines(body), LINES_TYPE) if self._accept == LINES_TYPE else Written(body)


class SpokenTensors:
    """A request of the Open Inference Protocol that came as an invocation."""

    __slots__ = ("_asked", "_triton", "id", "key")

    def __init__(self, asked: Asked, identity: str, *, triton: bool) -> None:
        self._asked = asked
        self._triton = triton
        self.id = asked.id or identity
        self.key = asked.key

    def tensors(self, served: Served) -> tuple[Tensors, int]:
        """The request's tensors as they are."""
        if self._asked.outputs:
            check_outputs(served, [item.name for item in self._asked.outputs])
        return self._asked.inputs, self._asked.rows

    def write(self, endpoint: str, served: Served, identity: str, outputs: Tensors) -> Written:
        """The protocol's answer."""
        asked = self._asked
        body, head = write_answer(
            endpoint, served.version, identity, outputs, wanted=asked.outputs, binary=asked.binary
        )
        if head is None:
            return Written(body)
        if self._triton:
            return Written(body, f"{TRITON_TYPE};json-header-size={head}")
        return Written(body, BINARY_TYPE, ((HEADER_LENGTH, str(head)),))


class SageMaker:
    """The `Dialect`."""

    def route(
        self, method: str, parts: list[str], headers: Headers, endpoints: Collection[str]
    ) -> Ask | Tell | None:
        """The two paths of a container."""
        if len(parts) != 2 or parts[1] not in ("ping", "invocations"):
            return None
        if parts[1] == "ping":
            _only(method, "GET", "HEAD")
            if not endpoints:
                raise RequestError("no endpoint is loaded yet", status=503, retry_after=1.0)
            return Tell(next(iter(endpoints)), None, lambda endpoint, served: Written(b""))
        _only(method, "POST")
        return Ask(_target(headers, endpoints), None, speak_invocation)


def speak_invocation(body: bytes, headers: Headers, limits: Limits) -> Spoken:
    """Reads an invocation by its `Content-Type`."""
    kind, options = _media(headers("content-type") or JSON_TYPE, "Content-Type")
    identity = headers(INFERENCE_ID) or ""
    if len(identity) > MAX_ID:
        raise RequestError("the inference id is too long", where="X-Amzn-SageMaker-Inference-Id",
                           rule=f"at most {MAX_ID} characters")  # fmt: skip
    if options.get("charset", "utf-8") not in ("utf-8", "utf8", "us-ascii"):
        raise RequestError("the character set is not supported", status=415, value=options["charset"][:64],
                           where="Content-Type", rule="utf-8")  # fmt: skip
    rows = limits.rows
    if kind == CSV_TYPE:
        return SpokenInvocation(read_csv(body, limit=rows), _accept(headers, CSV_TYPE), identity, identity,
                                limit=rows, text=True, header=_header(options))  # fmt: skip
    if kind in (LINES_TYPE, "application/x-ndjson"):
        return SpokenInvocation(read_lines(body, limit=rows), _accept(headers, LINES_TYPE), identity,
                                identity, limit=rows)  # fmt: skip
    if kind == ARROW_TYPE:
        # Arrow's reader is loaded by the first who sends it.
        from modelyard.serve.arrow_dialect import speak_arrow

        return speak_arrow(body, headers, limits)
    if kind in (TRITON_TYPE, BINARY_TYPE):
        return _tensors(body, headers, limits, identity, options, triton=kind == TRITON_TYPE)
    if kind != JSON_TYPE:
        raise RequestError("the content type is not supported", status=415, value=kind[:64],
                           where="Content-Type",
                           rule=f"{JSON_TYPE}, {LINES_TYPE}, {CSV_TYPE}, {ARROW_TYPE}")  # fmt: skip
    return _json(body, headers, limits, identity)


def _json(body: bytes, headers: Headers, limits: Limits, identity: str) -> Spoken:
    accept = _accept(headers, JSON_TYPE)
    if body.lstrip()[:1] == b"[":
        values = _list(body)
        return SpokenInvocation(listed(values, "body", limit=limits.rows), accept, identity, identity,
                                limit=limits.rows)  # fmt: skip
    head = read_object(body)
    given = [name for name in ("rows", "instances", "inputs") if name in head]
    if len(given) != 1:
        raise RequestError("the data is given twice" if given else "the data is missing", value=given or None,
                           where="body", rule="one of rows, instances, inputs, or a list")  # fmt: skip
    if given == ["inputs"]:
        return _tensors(body, headers, limits, identity, {}, triton=False)
    if given == ["rows"]:
        asked = read_rows(body, limit=limits.rows)
        identity = asked.id or identity
        return SpokenInvocation(list(asked.rows), accept, identity, asked.key or identity, limit=limits.rows)
    return SpokenInvocation(listed(head["instances"], "instances", limit=limits.rows), accept, identity,
                            identity, limit=limits.rows)  # fmt: skip


def _list(body: bytes) -> object:
    # Read inside an object, so that a key that is given twice is found as in any other body.
    try:
        return read_object(b'{"rows":' + body + b"}")["rows"]
    except RequestError as error:
        raise RequestError(error.what, value=error.value, rule=error.rule, where="body") from None


def _tensors(
    body: bytes, headers: Headers, limits: Limits, identity: str, options: dict[str, str], *, triton: bool
) -> SpokenTensors:
    where = "Content-Type (json-header-size)" if triton else "Inference-Header-Content-Length"
    length = options.get("json-header-size") if triton else headers(HEADER_LENGTH)
    if length is not None and not (length.isascii() and length.isdigit() and len(length) < 16):
        raise RequestError("the length is no whole number", value=length[:64], where=where)
    asked = read_request(
        body, None if length is None else int(length), elements=limits.elements, rows=limits.rows
    )
    return SpokenTensors(asked, identity, triton=triton)


def _target(headers: Headers, endpoints: Collection[str]) -> str:
    named = headers(TARGET)
    if named is not None:
        return named.removeprefix("/").removesuffix(".tar.gz")
    if len(endpoints) == 1:
        return next(iter(endpoints))
    if not endpoints:
        raise RequestError("no endpoint is loaded yet", status=503, retry_after=1.0)
    raise RequestError("there are several endpoints, and none is named",
                       where="X-Amzn-SageMaker-Target-Model",
                       rule="one of " + ", ".join(sorted(endpoints)[:10]))  # fmt: skip


def _accept(headers: Headers, default: str) -> str:
    asked = headers("accept")
    if asked is None:
        return default
    for choice in asked.split(","):
        kind, _ = _media(choice, "Accept")
        if kind in ("*/*", "application/*") or not kind:
            return default
        if kind in _ANSWERS:
            return kind
    raise RequestError("this kind of answer is not written", status=406, value=asked[:64], where="Accept",
                       rule=", ".join(_ANSWERS))  # fmt: skip


def _media(text: str, where: str) -> tuple[str, dict[str, str]]:
    kind, *options = text.split(";")
    found: dict[str, str] = {}
    for option in options:
        name, _, value = option.partition("=")
        name = name.strip().lower()
        if name in found:
            raise RequestError("an option is given twice", value=name[:64], where=where, rule="each once")
        found[name] = value.strip().strip('"').lower()
    return kind.strip().lower(), found


def _header(options: dict[str, str]) -> bool | None:
    said = options.get("header")
    if said not in (None, "present", "absent"):
        raise RequestError("the option is wrong", value=said[:64], where="Content-Type (header)",
                           rule="present or absent")  # fmt: skip
    return None if said is None else said == "present"


def _only(method: str, *allowed: str) -> None:
    if method not in allowed:
        raise RequestError("the method is not allowed here", status=405, value=method,
                           rule=" or ".join(allowed))  # fmt: skip
