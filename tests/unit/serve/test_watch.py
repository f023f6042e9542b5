"""What is seen of single requests: traces that are continued, lines in the log, spans."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import pytest

from modelyard.core.clock import ManualClock
from modelyard.core.errors import MissingExtra
from modelyard.serve import tracing
from modelyard.serve.tracing import Trace, continue_trace, open_exporter
from modelyard.serve.watch import Watch, Watched, route_of

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Replies(list[tuple[int, dict[str, str], bytes]]):
    """A reply that is kept."""

    def __call__(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self.append((status, dict(headers), body))


class Spans(list[Any]):
    """An exporter that keeps spans; it is its own span."""

    trace = Trace("1" * 32, "2" * 16, "", True)

    def begin(self, method: str, route: str, parent: Trace | None) -> Spans:
        self.append((method, route, parent))
        return self

    def end(self, status: int, facts: Mapping[str, str]) -> None:
        self.append((status, dict(facts)))

    def close(self) -> None: ...


def test_nobody_watches_by_default() -> None:
    reply = Replies()
    assert Watch(ManualClock()).over("GET", "/v2", {}.get, reply) is reply
    wrong = {"traceparent": "00-1-1-1"}
    assert Watch(ManualClock()).over("GET", "/v2", wrong.get, reply) is reply


def test_a_trace_goes_on_in_the_answer() -> None:
    reply = Replies()
    headers = {"traceparent": PARENT, "tracestate": "a=b"}
    watched = Watch(ManualClock()).over("GET", "/v2", headers.get, reply)
    assert isinstance(watched, Watched) and watched.trace is not None
    watched(200, [("content-type", "x")], b"")
    assert reply[0][1]["traceresponse"] == f"00-{PARENT[3:35]}-{watched.trace.span_id}-01"
    assert watched.trace.state == "a=b" and watched.names["trace"] == PARENT[3:35]


def test_lines_and_spans(caplog: pytest.LogCaptureFixture) -> None:
    clock, spans, reply = ManualClock(), Spans(), Replies()
    watch = Watch(clock, lines=True, exporter=spans)
    watched = watch.over("POST", "/predict/secret-name", {}.get, reply)
    assert isinstance(watched, Watched)
    watched.facts["id"] = "7"
    clock.advance(0.25)
    with caplog.at_level(logging.INFO, "modelyard.serve"):
        watched(503, [], b"four")
    fields = caplog.records[0].fields  # type: ignore[attr-defined]
    assert fields == {"method": "POST", "route": "/predict/{name}", "status": 503, "seconds": 0.25,
                      "bytes": 4, "trace": "1" * 32, "span": "2" * 16, "id": "7"}  # fmt: skip
    assert spans == [("POST", "/predict/{name}", None), (503, {"id": "7"})]


@pytest.mark.parametrize(
    "text",
    ["", "x", "00", PARENT[:-1], PARENT + "0", PARENT.upper(), "ff" + PARENT[2:],
     "00-" + "0" * 32 + PARENT[35:],
     PARENT[:36] + "0" * 16 + "-01", PARENT + "-x", PARENT.replace("-", "_"), "0" * 10_000, "٠" * 55],
)  # fmt: skip
def test_a_wrong_parent_begins_nothing(text: str) -> None:
    assert continue_trace(text) is None


def test_a_later_version_is_read_as_far_as_it_is_known() -> None:
    assert continue_trace("01" + PARENT[2:] + "-more") is not None
    trace = continue_trace(PARENT[:-2] + "02", "s" * 600)
    assert trace is not None and not trace.sampled and trace.state == ""


def test_without_the_sdk_traces_are_only_named(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_SDK_DISABLED"):
        monkeypatch.delenv(name, raising=False)
    assert open_exporter("1") is None

    def missing(module: str, *, extra: str) -> Any:
        raise MissingExtra(module, extra)

    monkeypatch.setattr(tracing, "require", missing)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    assert open_exporter("1") is None
    assert "modelyard[otel]" in caplog.text
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    caplog.clear()
    assert open_exporter("1") is None and not caplog.text


def test_spans_through_the_sdk() -> None:
    pytest.importorskip("opentelemetry.sdk")
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor  # type: ignore[import-not-found,unused-ignore]
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import (  # type: ignore[import-not-found,unused-ignore]
        InMemorySpanExporter,
    )

    kept = InMemorySpanExporter()
    exporter = tracing.SdkExporter("1", SimpleSpanProcessor(kept))
    span = exporter.begin("POST", "/predict/{name}", continue_trace(PARENT))
    span.end(500, {"endpoint": "a"})
    (found,) = kept.get_finished_spans()
    assert f"{found.context.trace_id:032x}" == span.trace.trace_id == PARENT[3:35]
    assert f"{found.parent.span_id:016x}" == PARENT[36:52] and not found.status.is_ok
    assert found.attributes["http.response.status_code"] == 500
    exporter.begin("gRPC", "/inference.GRPCInferenceService/ModelInfer", None).end(200, {})
    called = kept.get_finished_spans()[1].attributes
    assert (called["rpc.system"], called["rpc.method"]) == ("grpc", "ModelInfer")
    exporter.close()


def test_routes_hold_no_names() -> None:
    for path in ("/v2/models/secret", "/v2/models/secret/infer", "/v2/models/secret/versions/9/ready",
                 "/secret", "/predict/secret", "/feedback/secret", "/v2/repository/models/secret/load",
                 "/v1/models/secret:predict", "/v2/models/a/secret", "/v2/models/a/versions/1/secret",
                 "/inference.GRPCInferenceService/secret", "/" * 5_000):  # fmt: skip
        assert "secret" not in route_of(path) and len(route_of(path)) < 60
