"""What is seen of single requests: lines in the log and traces. Requests that nobody watches cost nothing."""

from __future__ import annotations

import logging

from modelyard.core.clock import Clock
from modelyard.serve.exchange import Headers, Reply
from modelyard.serve.grpc.messages import METHODS, SERVICE, STREAM
from modelyard.serve.tracing import Exporter, Span, Trace, continue_trace

_LOG = logging.getLogger("modelyard.serve")

_NAMED = ("infer", "ready", "load", "unload", "index", "live", "predict", "feedback", "versions", "models",
          "config", "stats")  # fmt: skip


class Watched:
    """A `Reply` that tells the log and the trace before it replies. `facts` may be added to until then."""

    __slots__ = ("_clock", "_line", "_method", "_reply", "_route", "_span", "_started", "facts", "trace")

    def __init__(
        self,
        reply: Reply,
        method: str,
        route: str,
        clock: Clock,
        *,
        line: bool,
        trace: Trace | None,
        span: Span | None,
    ) -> None:
        self._reply = reply
        self._method = method
        self._route = route
        self._clock = clock
        self._started = clock.monotonic()
        self._line = line
        self._span = span
        self.trace = trace if span is None else span.trace
        self.facts: dict[str, str] = {}

    @property
    def names(self) -> dict[str, str]:
        """What a line of the log says to find the request again."""
        trace = self.trace
        return self.facts if trace is None else {"trace": trace.trace_id, "span": trace.span_id, **self.facts}

    def __call__(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        if self.trace is not None:
            headers = [*headers, ("traceresponse", self.trace.parent)]
        try:
            self._reply(status, headers, body)
        finally:
            if self._span is not None:
                self._span.end(status, self.facts)
            if self._line:
                seconds = self._clock.monotonic() - self._started
                fields = {"method": self._method, "route": self._route, "status": status,
                          "seconds": round(seconds, 6), "bytes": len(body), **self.names}  # fmt: skip
                _LOG.info("request", extra={"fields": fields})


class Watch:
    """Decides which requests are watched: all with a line or an exporter, else those that bring a trace."""

    def __init__(self, clock: Clock, *, lines: bool = False, exporter: Exporter | None = None) -> None:
        self._clock = clock
        self._lines = lines
        self._exporter = exporter
        self.all = lines or exporter is not None
        """Whether every request is watched."""

    def over(self, method: str, path: str, headers: Headers, reply: Reply) -> Reply:
        """The reply itself, or one that is watched."""
        traceparent = headers("traceparent")
        if traceparent is None and not self.all:
            return reply
        trace = None
        if traceparent is not None:
            trace = continue_trace(traceparent, headers("tracestate"))
        if trace is None and not self.all:
            return reply
        method = method[:16]
        route = route_of(path)
        span = None if self._exporter is None else self._exporter.begin(method, route, trace)
        return Watched(reply, method, route, self._clock, line=self._lines, trace=trace, span=span)


def route_of(path: str) -> str:  # noqa: PLR0911 - a table
    """The path with names taken out, so that there are few of them; names may also be private.

    >>> route_of("/v2/models/churn/versions/3/infer"), route_of("/predict/churn"), route_of("/a/b")
    ('/v2/models/{name}/versions/{version}/infer', '/predict/{name}', 'other')
    """
    parts = path.split("/")
    match parts:
        case ["", "v2", "models", _, "versions", _, *rest] if len(rest) < 2 and set(rest) <= set(_NAMED):
            return "/".join(["/v2/models/{name}/versions/{version}", *rest])
        case ["", "v2", "models", _, *rest] if len(rest) < 2 and set(rest) <= set(_NAMED):
            return "/".join(["/v2/models/{name}", *rest])
        case ["", "v2", "repository", "models", _, ("load" | "unload") as act]:
            return f"/v2/repository/models/{{name}}/{act}"
        case ["", ("predict" | "feedback") as first, _]:
            return f"/{first}/{{name}}"
        case ["", service, method] if service == SERVICE and (method in METHODS or method == STREAM):
            return path
        case ["", "v1", "models", *_]:
            return "/v1/models/{name}"
        case _ if path in _PLAIN:
            return path
        case _:
            return "other"


_PLAIN = frozenset({"/v2", "/v2/health", "/v2/health/live", "/v2/health/ready", "/v2/repository/index",
                    "/metrics", "/openapi.json", "/ping", "/invocations"})  # fmt: skip
