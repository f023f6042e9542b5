"""Both loops against a small real server."""

from __future__ import annotations

import json
import socket
import sys
from pathlib import Path
from typing import Any

import pytest

from modelyard.core.errors import MissingExtra, RequestError, ServeError
from modelyard.serve.conform.client import Client
from modelyard.serve.conform.exchange import Request
from modelyard.serve.load.bench import Plan, run
from modelyard.serve.load.ceiling import ceiling
from modelyard.serve.load.chart import draw, text_chart
from modelyard.serve.load.generator import LoadOptions, closed_loop, open_loop
from modelyard.serve.load.histogram import Histogram
from modelyard.serve.load.result import LoadResult
from modelyard.serve.load.sweep import Sweep, rates_of, sweep
from modelyard.serve.load.target import Target, file_requests, model_requests, target_of

QUICK = LoadOptions(seconds=0.4, warmup=0.1, connections=4, timeout=2)
ASKED = [Request("POST", "/v2/models/m/infer", b'{"n":%d}' % number) for number in range(3)]


def target(server: Any) -> Target:
    return target_of(server.url, ASKED)


def test_closed_loop_keeps_its_connections_busy(server: Any) -> None:
    result = closed_loop(target(server), QUICK)
    assert result.connections == 4 == server.connections
    assert set(result.statuses) == {200} and not result.errors and not result.failed
    assert result.answered == result.good == result.latency.total <= len(server.seen)
    assert result.throughput > 100
    assert set(server.seen) == {item.body for item in ASKED}


def test_open_loop_sends_what_was_planned(server: Any) -> None:
    result = open_loop(target(server), QUICK, 200, kind="constant")
    assert result.sent == result.answered == 80 and not result.errors
    assert len(server.seen) == 100
    assert result.lag.total == 80
    assert result.rate == 200


def test_a_stall_shows_in_latency_though_the_generator_sends_on(server: Any) -> None:
    server.behave = lambda number: (200, 0.2 if number == 30 else 0.0, False)
    result = open_loop(target(server), QUICK, 200, kind="constant")
    assert result.sent == 80 == result.answered
    # 0.2 s of 200 a second: 40 requests of 80 waited, on average half of it.
    assert result.latency.quantile(0.9) > 0.1
    assert result.latency.largest < 1.5
    assert server.connections > 4 - 1


def test_a_second_of_silence_is_in_the_percentiles(server: Any) -> None:
    """A closed loop hides it: one request waits, and nobody asks meanwhile."""
    server.behave = lambda number: (200, 1.0 if number == 60 else 0.0, False)
    asked = LoadOptions(seconds=2.0, warmup=0.1, connections=64)
    open_result = open_loop(target(server), asked, 100, kind="constant")
    assert open_result.sent == open_result.answered == 200
    # Half of the two seconds' requests were due while the server was silent.
    assert open_result.latency.quantile(0.9) > 0.5 and open_result.latency.quantile(0.99) > 0.8
    server.seen.clear()
    # Not among the first, which are sent before the time that counts.
    server.behave = lambda number: (200, 1.0 if number == 200 else 0.0, False)
    closed = closed_loop(target(server), LoadOptions(seconds=2.0, warmup=0.0, connections=1))
    assert closed.latency.largest > 0.9
    assert closed.latency.quantile(0.9) < 0.5


def test_a_model_that_is_not_there_is_said(server: Any) -> None:
    with pytest.raises(ServeError, match="does not know this model"):
        model_requests(Client(server.url), "nobody")


def test_refusals_are_counted_apart(server: Any) -> None:
    server.behave = lambda number: (503 if number % 2 else 200, 0.0, False)
    result = open_loop(target(server), QUICK, 200, kind="constant")
    assert result.statuses[503] + result.statuses[200] == 80
    assert result.good == result.latency.total == result.statuses[200]
    assert result.failed == result.statuses[503]


def test_broken_connections_are_errors_and_are_replaced(server: Any) -> None:
    server.behave = lambda number: (0 if number % 10 == 0 else 200, 0.0, False)
    for result in (
        open_loop(target(server), QUICK, 200, kind="constant"),
        closed_loop(target(server), QUICK),
    ):
        assert sum(result.errors.values()) > 0 and result.statuses[200] > 0
        assert all("connection" in why for why in result.errors)
        assert result.answered + sum(result.errors.values()) <= result.sent


def test_a_server_that_closes_politely(server: Any) -> None:
    server.behave = lambda number: (200, 0.0, number % 3 == 0)
    result = closed_loop(target(server), QUICK)
    assert not result.errors and result.good > 20


def test_a_silent_server_ends_with_the_timeout() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(64)
        asked = target_of(f"http://127.0.0.1:{silent.getsockname()[1]}", ASKED)
        options = LoadOptions(seconds=0.2, warmup=0.0, connections=2, timeout=0.2)
        result = open_loop(asked, options, 50, kind="constant")
    assert result.errors == {"no answer in time": 2, "no free connection": 8}
    assert result.answered == 0 and result.latency.total == 10 and result.failed == 10
    assert result.latency.quantile(0.5) >= 0.2  # they waited at least so long


def test_nobody_there() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(ServeError, match="cannot be reached"):
            closed_loop(target_of(f"http://127.0.0.1:{taken.getsockname()[1]}", ASKED), QUICK)


def test_a_deadline_splits_good_from_answered(server: Any) -> None:
    server.behave = lambda number: (200, 0.02, False)
    options = LoadOptions(seconds=0.3, warmup=0, connections=2, deadline=0.001)
    result = closed_loop(target(server), options)
    assert result.answered > 0 == result.good and result.goodput == 0


def test_the_generator_says_when_it_is_the_limit() -> None:
    fast, slow = Histogram.of([0.001] * 100), Histogram.of([0.004] * 100)
    good = LoadResult("open", 10, 1, 100, 1.0, {200: 100}, latency=slow, lag=Histogram.of([0.0001] * 100))
    assert not good.limited
    late = LoadResult("open", 10, 1, 100, 1.0, {200: 100}, latency=slow, lag=fast)
    assert "late" in late.limited
    assert "core" in LoadResult("closed", 0, 1, 100, 1.0, busy=0.99).limited
    merged = good.merge(late)
    assert merged.sent == 200 and merged.seconds == 2 and merged.latency.total == 200


def test_requests_from_metadata_and_files(server: Any) -> None:
    made = model_requests(Client(server.url), None, items=2)
    assert len({item.body for item in made}) == len(made) == 32
    assert json.loads(made[0].body)["inputs"][0]["shape"] == [2, 4]
    rows = file_requests([{"size": 1}, {"size": 2}], "digits")
    assert [item.path for item in rows] == ["/predict/digits"] * 2
    assert json.loads(rows[0].body) == {"rows": [{"size": 1}]}
    assert file_requests({"inputs": []}, "a/b")[0].path == "/v2/models/a%2Fb/infer"
    assert file_requests({"instances": [1]}, None, "/v1/models/m:predict")[0].body == b'{"instances":[1]}'
    for bad, endpoint in (([], "m"), ([1], "m"), ("x", "m"), ({"inputs": []}, None)):
        with pytest.raises(RequestError):
            file_requests(bad, endpoint)


def test_headers_cannot_smuggle() -> None:
    with pytest.raises(ServeError, match="header"):
        target_of("http://a", ASKED, headers={"x": "a\r\nX-B: c"})
    with pytest.raises(ServeError, match="nothing"):
        target_of("http://a", [])


def test_a_bench_with_its_ceiling(server: Any) -> None:
    options = LoadOptions(seconds=0.3, warmup=0.1, connections=2)
    found = run(Plan(server.url), options)
    assert found.answered and found.path == "/v2/models/m/infer"
    assert found.ceiling is not None and found.ceiling.closed is not None
    assert not found.ceiling.closed.failed and found.share is not None and found.share > 0
    value = json.loads(json.dumps(found.to_json()))
    assert value["server"]["closed"]["latency"]["p99"] > 0


def test_the_ceiling_answers_with_the_same_size_and_goes_away(server: Any) -> None:
    asked = target_of(server.url, ASKED)
    with ceiling(Target(asked.host, asked.port, asked.requests, answer=333)) as constant:
        exchange = Client(f"http://127.0.0.1:{constant.port}").send(ASKED[0])
        assert exchange.response is not None and len(exchange.response.body) == 333
    assert Client(f"http://127.0.0.1:{constant.port}", timeout=1).get("/").response is None


def test_the_ceiling_needs_uvloop(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvloop", None)
    with pytest.raises(MissingExtra, match="serve"), ceiling(target(server)):
        pass


def test_a_first_request_that_fails_is_said(server: Any) -> None:
    server.behave = lambda number: (500, 0.0, False)
    with pytest.raises(ServeError, match="first request"):
        run(Plan(server.url, ceiling=False), QUICK)


def point(rate: float, latency: float, good: int = 100, overtime: float = 0.0) -> LoadResult:
    times = Histogram.of([latency * (1 + place / 50) for place in range(100)])
    took = 1.0 + overtime
    return LoadResult("open", rate, 8, 100, took, {200: 100}, good=good, latency=times, overtime=overtime)


def test_a_sweep_finds_the_knee(tmp_path: Path) -> None:
    def measure(rate: float, tell: Any) -> LoadResult:
        tell(1.0, "")
        return point(rate, 0.001 if rate < 800 else 0.5, 100 if rate < 800 else 20)

    assert Sweep(1, (point(100, 0.1), point(200, 0.1, overtime=0.5))).knee == 100
    told: list[float] = []
    swept = sweep(measure, 1000, rates_of(1000), progress=lambda done, _: told.append(done))
    assert swept.knee == 700 and told == sorted(told) and told[-1] == 1.0
    text = text_chart(swept)
    assert "o p50" in text and "1200 a second" in text and len(text.splitlines()) == 17
    assert text_chart(Sweep(0, ())) == ""
    for name in ("a.svg", "b.png"):
        draw(tmp_path / name, {"server": swept, "ceiling": swept}, title="m")
    assert "<svg" in (tmp_path / "a.svg").read_text()[:600]
    assert (tmp_path / "b.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ServeError, match="ending"):
        draw(tmp_path / "c.pdf", {}, title="")


@pytest.mark.parametrize("wrong", [{"seconds": 0}, {"connections": 0}, {"warmup": -1}, {"deadline": 0}])
def test_impossible_options(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"positive|connections"):
        LoadOptions(**wrong)


@pytest.mark.serial
def test_the_generator_is_worth_15000_requests_a_second_of_a_core(server: Any) -> None:
    """By the processor time that it takes itself, so that a busy machine does not decide."""
    with ceiling(target(server)) as constant:
        result = closed_loop(constant, LoadOptions(seconds=1, warmup=0.2, connections=64))
    assert not result.failed
    assert result.throughput / result.busy > 15_000
