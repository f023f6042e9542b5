"""W3C Trace Context: a caller's trace is continued, named in log and answer, and exported on demand.

Source: https://www.w3.org/TR/trace-context/ (version 00; a later one is read as far as it is known). A
`traceparent` that is wrong is ignored, as the standard says: tracing must not fail a request.
"""

from __future__ import annotations

import logging
import os
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from modelyard.core.errors import MissingExtra
from modelyard.core.require import require

_LOG = logging.getLogger("modelyard.serve")

_PARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?\Z")
_SAMPLED = 1
_STATE = 512
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")


@dataclass(frozen=True, slots=True)
class Trace:
    """A place in a trace: hexadecimal ids, whose span is the caller's parent (empty for a new trace)."""

    trace_id: str
    span_id: str
    parent_id: str
    sampled: bool
    state: str = ""

    @property
    def parent(self) -> str:
        """What those who are asked next are to get as `traceparent`."""
        return f"00-{self.trace_id}-{self.span_id}-{'01' if self.sampled else '00'}"


def continue_trace(traceparent: str, tracestate: str | None = None) -> Trace | None:
    """The caller's trace with a span of our own, `None` when the header is wrong.

    >>> trace = continue_trace("00-" + "ab" * 16 + "-" + "cd" * 8 + "-01")
    >>> trace.trace_id == "ab" * 16, trace.parent_id == "cd" * 8, trace.sampled
    (True, True, True)
    >>> continue_trace("00-" + "0" * 32 + "-" + "cd" * 8 + "-01") is None
    True
    """
    found = _PARENT.match(traceparent.strip())
    if found is None:
        return None
    version, trace_id, parent_id, flags, rest = found.groups()
    if version == "ff" or (version == "00" and rest) or not int(trace_id, 16) or not int(parent_id, 16):
        return None
    state = tracestate if tracestate is not None and len(tracestate) <= _STATE else ""
    return Trace(trace_id, secrets.token_hex(8), parent_id, bool(int(flags, 16) & _SAMPLED), state)


class Span(Protocol):
    """One request as the exporter sees it; `end` is called once."""

    @property
    def trace(self) -> Trace: ...

    def end(self, status: int, facts: Mapping[str, str]) -> None: ...


class Exporter(Protocol):
    """Where spans go; called on the event loop's thread, must not block."""

    def begin(self, method: str, route: str, parent: Trace | None) -> Span: ...

    def close(self) -> None: ...


def open_exporter(version: str) -> Exporter | None:
    """The exporter that the environment asks for (`OTEL_EXPORTER_OTLP_ENDPOINT`), `None` without one.

    Where the SDK is not installed, traces are only continued and named; the log says so once.
    """
    if not any(os.environ.get(name) for name in _ENDPOINTS):
        return None
    if os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return None
    try:
        return SdkExporter(version)
    except MissingExtra as error:
        _LOG.warning("traces are not exported: %s", error)
        return None


class SdkExporter:
    """Spans through `opentelemetry-sdk`, sent in batches by a thread of its own over OTLP/HTTP.

    `processor` stands in for the batches and their network in tests.
    """

    def __init__(self, version: str, processor: Any = None) -> None:
        sdk = require("opentelemetry.sdk.trace", extra="otel")
        self._api = require("opentelemetry.trace", extra="otel")
        resource = require("opentelemetry.sdk.resources", extra="otel").Resource.create(
            {"service.name": os.environ.get("OTEL_SERVICE_NAME", "modelyard"), "service.version": version}
        )
        if processor is None:
            export = require("opentelemetry.sdk.trace.export", extra="otel")
            otlp = require("opentelemetry.exporter.otlp.proto.http.trace_exporter", extra="otel")
            processor = export.BatchSpanProcessor(otlp.OTLPSpanExporter())
        self._provider = sdk.TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("modelyard.serve", version)

    def begin(self, method: str, route: str, parent: Trace | None) -> Span:
        """Starts a span, below the caller's when there is one; the SDK's sampler decides about the rest."""
        api = self._api
        context = None
        if parent is not None:
            above = api.SpanContext(
                int(parent.trace_id, 16),
                int(parent.parent_id, 16),
                is_remote=True,
                trace_flags=api.TraceFlags(_SAMPLED if parent.sampled else 0),
                trace_state=api.TraceState.from_header([parent.state] if parent.state else []),
            )
            context = api.set_span_in_context(api.NonRecordingSpan(above))
        attributes = {"http.request.method": method, "http.route": route}
        if method == "gRPC":
            _, service, called = route.split("/") if route.count("/") == 2 else ("", "", route)
            attributes = {"rpc.system": "grpc", "rpc.service": service, "rpc.method": called}
        span = self._tracer.start_span(
            f"{method} {route}", context, kind=api.SpanKind.SERVER, attributes=attributes
        )
        return _SdkSpan(span, "" if parent is None else parent.parent_id, self._api)

    def close(self) -> None:
        """Sends what has gathered."""
        self._provider.shutdown()


class _SdkSpan:
    __slots__ = ("_api", "_span", "trace")

    def __init__(self, span: Any, parent_id: str, api: Any) -> None:
        self._span = span
        self._api = api
        inner = span.get_span_context()
        sampled = bool(inner.trace_flags & _SAMPLED)
        self.trace = Trace(f"{inner.trace_id:032x}", f"{inner.span_id:016x}", parent_id, sampled)

    def end(self, status: int, facts: Mapping[str, str]) -> None:
        span = self._span
        span.set_attribute("http.response.status_code", status)
        for name, value in facts.items():
            span.set_attribute(f"modelyard.{name}", value)
        if status >= 500:
            span.set_status(self._api.Status(self._api.StatusCode.ERROR))
        span.end()
