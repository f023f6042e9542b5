"""Options, processes and small parts."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import orjson
import pytest

from modelyard.core.errors import ServeError
from modelyard.serve.memory import budget, in_use, limit
from modelyard.serve.metrics import BATCH_BUCKETS, Histogram, Metrics
from modelyard.serve.options import Limits, LogOptions, OwnLimits, ServeOptions
from modelyard.serve.process import ProcessFile, bind, start_time


def options(**changes: Any) -> ServeOptions:
    return ServeOptions(**({"state": Path("/s"), "root": Path("/r"), "endpoints": ("a",)} | changes))


def test_they_survive_json() -> None:
    given = options(
        keys=Path("/k"),
        port=0,
        limits=Limits(body=1),
        log=LogOptions(keep_private=True),
        records="sqlite:///x",
        pinned=("a",),
        memory_bytes=1 << 30,
        own={"a": OwnLimits(queue=5, wait_seconds=0.5)},
    )
    assert ServeOptions.from_json(orjson.loads(orjson.dumps(given.to_json()))) == given
    with pytest.raises(ServeError, match="version"):
        ServeOptions.from_json({"format": 99})


def test_an_endpoint_has_limits_of_its_own() -> None:
    given = options(endpoints=("a", "b"), own={"a": OwnLimits(queue=5, wait_seconds=0.5)})
    assert (given.limits_of("a").queue, given.limits_of("a").wait_seconds) == (5, 0.5)
    assert given.limits_of("a").batch == given.limits.batch and given.limits_of("b") == given.limits
    with pytest.raises(ServeError, match="did you mean 'batch'"):
        OwnLimits.read("a", {"bach": 3})
    with pytest.raises(ServeError, match="did you mean 'first'"):
        options(endpoints=("first",), pinned=("frist",))
    with pytest.raises(ServeError, match="did you mean 'first'"):
        options(endpoints=("first",), own={"frist": OwnLimits()})


def test_the_memory_of_models_is_what_was_asked_for_or_a_part_of_what_there_is() -> None:
    assert budget(100, 4) == 100 and budget(0, 1) == float("inf")
    there = limit()
    assert there is not None and budget(None, 3) == 0.25 * there
    assert 0 < in_use() < there


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "192.168.1.1"])  # noqa: S104 - refused
def test_other_machines_are_kept_out_unless_it_is_meant(host: str) -> None:
    with pytest.raises(ServeError, match="exposed=True"):
        options(host=host)
    assert options(host=host, exposed=True).host == host


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "127.8.0.1"])
def test_this_machine_is_always_allowed(host: str) -> None:
    assert options(host=host).host == host


@pytest.mark.parametrize(
    "changes",
    [
        {"endpoints": ()}, {"endpoints": ("../etc",)}, {"endpoints": ("a", "a")}, {"port": -1},
        {"port": 70_000}, {"workers": 0}, {"host": "example.org"}, {"host": ""}, {"eager": -1},
        {"memory_bytes": -1}, {"own": {"a": OwnLimits(batch=0)}},
    ],
)  # fmt: skip
def test_nonsense_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ServeError):
        options(**changes)


def test_a_pid_is_only_believed_with_its_start_time(tmp_path: Path) -> None:
    file = tmp_path / "service.json"
    began = start_time(os.getpid())
    assert began is not None
    mine = ProcessFile(os.getpid(), began, "http://x", {"a": 1})
    mine.write(file)
    assert ProcessFile.read(file) == mine
    ProcessFile(os.getpid(), began + 1, "http://x", {}).write(file)
    assert ProcessFile.read(file) is None
    for text in ("", "[]", '{"format": 9}', '{"format": 1, "pid": "x"}'):
        file.write_text(text)
        assert ProcessFile.read(file) is None
    assert ProcessFile.read(tmp_path / "none") is None


def test_an_address_is_not_shared() -> None:
    with bind("127.0.0.1", 0, 8) as listening:
        port = listening.getsockname()[1]
        with pytest.raises(ServeError, match="cannot be listened on"):
            bind("127.0.0.1", port, 8)
        sharing = socket.socket()
        with sharing:
            sharing.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            with pytest.raises(OSError, match="in use"):
                sharing.bind(("127.0.0.1", port))


def test_buckets_are_cumulative_and_labels_escaped() -> None:
    histogram = Histogram(BATCH_BUCKETS)
    for value in (1, 1, 64, 10_000):
        histogram.observe(value)
    lines = list(histogram.lines("b", '{e="x"}'))
    assert lines[0] == 'b_bucket{e="x",le="1"} 2'
    assert lines[-3:] == ['b_bucket{e="x",le="+Inf"} 4', 'b_sum{e="x"} 10066', 'b_count{e="x"} 4']
    assert histogram.count == 4
    metrics = Metrics()
    metrics.http.at('a"b\\c\nd').add()
    assert r'{status="a\"b\\c\nd"} 1' in metrics.text().decode()
    with pytest.raises(ValueError, match="labels"):
        metrics.http.at("a", "b")
    metrics.http.forget('a"b\\c\nd')
    assert "a\\" not in metrics.text().decode()
