"""The kit finds nothing wrong with a correct server, and each break by the case that is meant for it."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Mapping
from typing import Any

import pytest

from modelyard.core.errors import ServeError
from modelyard.serve.conform.case import Case, Level
from modelyard.serve.conform.client import Client
from modelyard.serve.conform.exchange import Request, Response, curl
from modelyard.serve.conform.kit import CASES, Report, conform

NOT_GRPC = tuple(case for case in CASES if case.section != "gRPC")
ALONE = tuple(case for case in NOT_GRPC if not case.id.startswith("crowd."))

BREAKS: dict[str, set[str]] = {
    "server-fault": {"error.client-fault", "error.method"},
    "error-text": {"error.object"},
    "error-type": {"error.content-type"},
    "any-method": {"error.method"},
    "server-metadata": {"server.metadata"},
    "not-live": {"server.live", "health.bodies", "server.after"},
    "bodies": {"health.bodies"},
    "not-ready": {"server.ready", "server.after"},
    "model-not-ready": {"model.ready", "model.versions", "health.bodies", "server.after"},
    "metadata-shape": {"model.metadata"},
    "signature": {"infer.signature"},
    "version-listed": {"model.versions", "model.version-infer"},
    "any-metadata": {"error.unknown-metadata"},
    "any-model": {"error.unknown-model"},
    "any-version": {"error.unknown-version"},
    "index": {"repository.index", "repository.ready"},
    "load-any": {"repository.unknown"},
    "unload-nothing": {"repository.cycle"},
    "lazy-empty": {"error.empty-body"},
    "header-length": {"binary.header-length"},
    "left-over": {"binary.left-over"},
    "closes-json": {"error.malformed-json"},
    "lax-utf8": {"error.not-utf8"},
    "lists": {"error.not-an-object"},
    "no-inputs": {"error.no-inputs"},
    "by-place": {"infer.input-order", "error.no-name"},
    "extra-input": {"error.unknown-input"},
    "twice": {"error.duplicate-input"},
    "no-datatype": {"error.no-datatype"},
    "any-datatype": {"error.unknown-datatype"},
    "wraps": {"error.huge-shape"},
    "reshapes": {"error.wrong-shape"},
    "squeezes": {"error.wrong-rank"},
    "defaults": {"error.missing-input"},
    "both": {"binary.data-twice"},
    "sizes": {"binary.size"},
    "truncated": {"binary.truncated"},
    "prefix": {"binary.text-prefix"},
    "big-endian": {"binary.inputs", "binary.mixed-inputs"},
    "no-data": {"error.no-data"},
    "flat-only": {"infer.nested"},
    "ragged": {"error.ragged-data"},
    "pads": {"error.short-data"},
    "cuts": {"error.long-data"},
    "ascii": {"infer.datatypes"},
    "parses-text": {"error.text-for-number"},
    "nan-fails": {"infer.not-a-number"},
    "nan-literal": {"infer.not-a-number"},
    "wraps-values": {"error.out-of-range"},
    "batch-mean": {"infer.batch"},
    "extra-output": {"error.unknown-output"},
    "all-outputs": {"infer.named-outputs"},
    "strict-parameters": {"infer.parameters"},
    "no-override": {"binary.override"},
    "one-binary": {"binary.one-output"},
    "never-binary": {"binary.outputs", "binary.one-output", "binary.content-type"},
    "model-name": {"infer.model-name"},
    "id": {"infer.id"},
    "content-type": {"infer.content-type"},
    "binary-type": {"binary.content-type"},
}
"""What each break of the reference server is found by; some break several things."""


def failed(report: Report) -> set[str]:
    return {line.case.id for line in report.failures()}


def told(report: Report) -> str:
    return "\n".join(f"{line.case.id}: {line.outcome.why}" for line in report.failures())


def test_case_ids_differ() -> None:
    assert len({case.id for case in CASES}) == len(CASES)


def test_a_correct_server_holds_everything(serve: Any, reference: Any) -> None:
    """Over real sockets, with every case that applies to a model of four datatypes."""
    report = conform(Client(serve(reference()), control=True), cases=NOT_GRPC)
    assert not report.failures(), told(report)
    assert report.conforms and report.count("holds") == len(NOT_GRPC)


@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")  # the reference is given NaN
@pytest.mark.parametrize("name", BREAKS)
def test_each_break_is_found_by_its_case(name: str, beside: Any, reference: Any) -> None:
    report = conform(beside(reference(frozenset([name]))), models=["m"], cases=ALONE)
    assert failed(report) == BREAKS[name], told(report)
    required = {line.case.level for line in report.failures()} & {"required"}
    assert report.conforms == (not required)
    for line in report.failures():
        assert line.outcome.why and line.outcome.shown is not None
        assert report.request(line).find("curl -si") >= 0


def test_health_that_fails_under_load_is_found(beside: Any, reference: Any) -> None:
    crowd = [case for case in CASES if case.id.startswith("crowd.")]
    assert failed(conform(beside(reference(frozenset(["not-ready"]))), cases=crowd)) == {"crowd.health"}


def test_a_random_model_is_not_blamed_on_the_server(beside: Any, reference: Any) -> None:
    report = conform(beside(reference(frozenset(["random"]))), cases=NOT_GRPC)
    assert report.conforms, told(report)
    skipped = {line.case.id for line in report.lines if line.outcome.result == "not applicable"}
    assert {"crowd.own-answers", "infer.batch", "binary.inputs"} <= skipped


class Swapping:
    """A server whose batcher hands two callers each other's answers when they come at once."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.lock = threading.Lock()
        self.waiting: tuple[list[Response], threading.Event, Response] | None = None

    def answer(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Response:
        response: Response = self.inner.answer(method, path, headers, body)
        if b'"crowd-' not in body:
            return response
        mine: list[Response] = []
        came = threading.Event()
        with self.lock:
            if self.waiting is not None:
                theirs, there, other = self.waiting
                theirs.append(self._mixed(other, response))
                there.set()
                self.waiting = None
                return self._mixed(response, other)
            self.waiting = (mine, came, response)
        came.wait(0.2)
        with self.lock:
            if not mine:
                self.waiting = None
        return mine[0] if mine else response

    def _mixed(self, mine: Response, other: Response) -> Response:
        """The outputs of another caller under one's own id."""
        head = json.loads(mine.body) | {"outputs": json.loads(other.body)["outputs"]}
        return Response(200, mine.headers, json.dumps(head).encode(), 0.0)


def test_swapped_answers_are_found(serve: Any, reference: Any) -> None:
    crowd = [
        case for case in CASES if case.id in ("infer.all", "infer.id", "infer.batch", "crowd.own-answers")
    ]
    report = conform(Client(serve(Swapping(reference()))), cases=crowd)
    assert failed(report) == {"crowd.own-answers"}
    assert "that of caller" in told(report)


class Dying:
    """A server that a deep nesting kills."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.dead = False

    def answer(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Response:
        self.dead = self.dead or body.startswith(b"[[[")
        if self.dead:
            raise ConnectionError("gone")
        response: Response = self.inner.answer(method, path, headers, body)
        return response


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_server_that_dies_is_found(serve: Any, reference: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socketserver.BaseServer.handle_error", lambda *_: None)
    some = [case for case in CASES if case.id in ("infer.all", "error.deep-nesting", "server.after")]
    report = conform(Client(serve(Dying(reference()))), cases=some)
    assert failed(report) == {"error.deep-nesting", "server.after"}
    assert "no answer" in told(report)


def test_a_server_that_never_answers_costs_the_timeout_only() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        client = Client(f"http://127.0.0.1:{silent.getsockname()[1]}", timeout=0.1)
        began = time.monotonic()
        report = conform(client, models=["m"], budget=0.5, cases=NOT_GRPC)
        assert time.monotonic() - began < 5
    assert not report.complete and not report.conforms
    assert "nothing within 0.1 s" in report.lines[0].outcome.why


def test_a_slow_drip_is_cut() -> None:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        ended = threading.Event()

        def drip() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
                while not ended.wait(0.02):
                    try:
                        connection.sendall(b"x")
                    except OSError:
                        return

        thread = threading.Thread(target=drip)
        thread.start()
        exchange = Client(f"http://127.0.0.1:{listening.getsockname()[1]}", timeout=0.3).get("/v2")
        ended.set()
        thread.join()
    assert exchange.response is None and "nothing within" in exchange.error


@pytest.mark.parametrize(
    ("status", "body", "word"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nab", "", "IncompleteRead|2 of 10"),
        (b"nonsense\r\n\r\n", "", "BadStatusLine"),
        (b"", "", "RemoteDisconnected|Disconnected"),
        (b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 5000, "", "longer than 4000"),
    ],
)
def test_broken_http_is_said(status: bytes, body: str, word: str) -> None:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()

        def once() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(status)

        thread = threading.Thread(target=once)
        thread.start()
        exchange = Client(f"http://127.0.0.1:{listening.getsockname()[1]}", limit=4000).get("/v2")
        thread.join()
    assert exchange.response is None
    assert any(part in exchange.error for part in word.split("|")), exchange.error


def test_nobody_there_and_no_models(serve: Any) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(ServeError, match="does not answer"):
            conform(Client(f"http://127.0.0.1:{taken.getsockname()[1]}"))

    class Empty:
        def answer(self, *_: object) -> Response:
            return Response(404, {}, b"", 0.0)

    with pytest.raises(ServeError, match="--model"):
        conform(Client(serve(Empty())))


@pytest.mark.parametrize("url", ["nonsense", "ftp://a", "http://", "http://a:99999", "file:///etc/passwd"])
def test_addresses_that_are_none(url: str) -> None:
    with pytest.raises(ServeError):
        Client(url)


def test_redirects_are_not_followed(serve: Any) -> None:
    seen: list[str] = []

    class Elsewhere:
        def answer(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Response:
            seen.append(path)
            return Response(307, {"location": "/other"}, b"", 0.0)

    assert Client(serve(Elsewhere())).get("/v2").status == 307
    assert seen == ["/v2"]


def test_the_curl_lines_send_the_same_bytes(serve: Any) -> None:
    assert shutil.which("curl"), "the test needs curl: apt-get install curl"
    seen: list[tuple[str, str, bytes, str | None, str | None]] = []

    class Echo:
        def answer(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Response:
            low = {name.lower(): value for name, value in headers.items()}
            seen.append((method, path, body, low.get("x-a"), low.get("content-type")))
            return Response(200, {}, b"{}", 0.0)

    url = serve(Echo())
    for body in (b'{"a": "it\'s"}', bytes(range(256)) * 2, b"[" * 50_000, "{'é'}%\\".encode()):
        request = Request("POST", "/v2/models/m/infer", body, {"X-A": "b c"})
        shown = Client(url).send(request).request
        subprocess.run(["bash", "-c", curl(url, shown)], check=True, capture_output=True)
        assert seen[-1] == seen[-2]
        assert seen[-1][2] == body


def test_secrets_do_not_reach_the_report() -> None:
    line = curl("http://a", Request("GET", "/v2", headers={"Authorization": "Bearer sesame"}))
    assert "sesame" not in line and "Authorization" in line


def test_the_report_as_json(beside: Any, reference: Any) -> None:
    some = [case for case in CASES if case.id in ("infer.all", "infer.id", "grpc.raw")]
    report = conform(beside(reference(frozenset(["id"]))), cases=some)
    value = json.loads(json.dumps(report.to_json()))
    assert value["counts"] == {"holds": 1, "fails": 1, "not applicable": 1}
    shown = next(line for line in value["cases"] if line["id"] == "infer.id")["shown"]
    assert shown["status"] == 200 and "curl -si" in shown["curl"]


@pytest.mark.parametrize("level", ["required", "optional", "extension"])
def test_only_required_cases_decide(level: Level, beside: Any, reference: Any) -> None:
    real = next(case for case in CASES if case.id == "infer.id")
    case = Case("a", "b", "c", level, real.check)
    report = conform(beside(reference(frozenset(["id"]))), cases=[case])
    assert report.conforms == (level != "required")
