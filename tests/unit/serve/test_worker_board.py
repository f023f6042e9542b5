"""Several workers' counts told as one: sums, gauges by meaning, nothing lost to a death, nothing back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelyard.serve.metrics import Metrics
from modelyard.serve.worker_board import WorkerBoard, board_folder, read_place, ready_workers

LABELS = ("mlp", "sha256:a", "1", "primary", "ok")


class Healthy:
    def __init__(self) -> None:
        self.ready = True


class Worker:
    """A worker that counts; `board` is not opened: no thread of its own writes in these tests."""

    def __init__(self, state: Path, slot: int, workers: int) -> None:
        self.metrics = Metrics()
        self.health = Healthy()
        self.board = WorkerBoard(state, slot, workers, self.metrics, self.health)

    def answer(self, seconds: float, status: int = 200) -> None:
        self.metrics.requests.at(*LABELS).add()
        self.metrics.seconds.at(*LABELS).observe(seconds)
        self.metrics.http.at(str(status)).add()


def told(text: bytes) -> dict[str, float]:
    """The series of a scrape, read by Prometheus' own client."""
    from prometheus_client import parser

    return {
        f"{sample.name}{sorted(sample.labels.items())}": sample.value
        for family in parser.text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def total(text: bytes, name: str) -> float:
    return sum(value for series, value in told(text).items() if series.startswith(name + "["))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.floats(1e-6, 20), st.sampled_from((200, 400, 503)))))
def test_the_sum_over_workers_is_what_was_sent(sent: list[tuple[int, float, int]]) -> None:
    with TemporaryDirectory() as folder:
        workers = [Worker(Path(folder), slot, 4) for slot in range(4)]
        alone = Worker(Path(folder) / "alone", 0, 1)
        for slot, seconds, status in sent:
            workers[slot].answer(seconds, status)
            alone.answer(seconds, status)
        for worker in workers:
            worker.board.write()
        right = told(alone.metrics.text())
        for worker in workers:
            found = told(worker.board.text())
            assert found.keys() == right.keys()
            for series, value in right.items():
                assert math.isclose(found[series], value, rel_tol=1e-9), series


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(("answer", "scrape", "write", "die")), st.integers(0, 2))))
def test_no_counter_ever_goes_back(steps: list[tuple[str, int]]) -> None:
    with TemporaryDirectory() as folder:
        workers = [Worker(Path(folder), slot, 3) for slot in range(3)]
        before: dict[str, float] = {}
        answered = 0
        for step, slot in steps:
            match step:
                case "answer":
                    workers[slot].answer(0.01)
                    answered += 1
                case "write":
                    workers[slot].board.write()
                case "die":
                    workers[slot] = Worker(Path(folder), slot, 3)
                case "scrape":
                    found = told(workers[slot].board.text())
                    assert all(found[series] >= value for series, value in before.items())
                    assert found.get(f"modelyard_http_responses_total{[('status', '200')]}", 0) <= answered
                    before = found


def test_a_dead_workers_counts_are_kept_and_its_gauges_are_not(state: Path) -> None:
    one, two = (Worker(state, slot, 2) for slot in (0, 1))
    for worker in (one, two):
        worker.answer(0.02)
        worker.metrics.waiting.at("sha256:a").set(5)
        worker.board.write()
    assert total(one.board.text(), "modelyard_waiting_items") == 10
    for _ in range(3):
        two = Worker(state, 1, 2)
        two.answer(0.02)
        two.board.write()
    text = one.board.text()
    assert total(text, "modelyard_requests_total") == total(two.board.text(), "modelyard_requests_total") == 5
    assert total(text, "modelyard_request_seconds_count") == 5
    assert total(text, "modelyard_waiting_items") == 5
    # Nobody has come in its place yet: what it counted stands, what it held is gone.
    dead(state, 1)
    one.metrics.waiting.at("sha256:a").set(2)
    text = one.board.text()
    assert total(text, "modelyard_requests_total") == 5
    assert total(text, "modelyard_waiting_items") == 2


def dead(state: Path, slot: int) -> None:
    """Makes a place one of a process that is gone; its pid is another's now."""
    place = read_place(state, slot)
    assert place is not None and place.lives
    gone = msgspec.structs.replace(place, started=place.started - 1)
    (board_folder(state) / f"{slot}.msgpack").write_bytes(msgspec.msgpack.encode(gone))


def test_gauges_by_their_meaning(state: Path) -> None:
    workers = [Worker(state, slot, 3) for slot in range(3)]
    for worker, (generation, up, waiting) in zip(
        workers, ((7, 1, 3), (5, 1, 0), (7, 0, 4)), strict=True
    ):  # fmt: skip
        worker.metrics.generation.at("mlp").set(generation)
        worker.metrics.store_up.at().set(up)
        worker.metrics.waiting.at("sha256:a").set(waiting)
        worker.board.write()
    for worker in workers:
        text = worker.board.text()
        # All have taken over what the slowest has; the store is up when all can reach it.
        assert total(text, "modelyard_endpoint_generation") == 5
        assert total(text, "modelyard_store_up") == 0
        assert total(text, "modelyard_waiting_items") == 7


def test_what_a_newcomer_does_not_know_yet_is_not_held_against_the_others(state: Path) -> None:
    old, young = Worker(state, 0, 2), Worker(state, 1, 2)
    old.metrics.generation.at("mlp").set(9)
    old.metrics.store_up.at().set(1)
    old.board.write()
    text = young.board.text()
    assert total(text, "modelyard_endpoint_generation") == 9
    assert total(text, "modelyard_store_up") == 1


@pytest.mark.parametrize(
    "content",
    [b"", b"\xc1", b"{}", msgspec.msgpack.encode({"format": 1}), b"\x00" * 1_000,
     msgspec.msgpack.encode({"format": 2, "pid": 1, "started": 1, "ready": True, "samples": {}})],
)  # fmt: skip
def test_a_place_that_cannot_be_read_is_passed_over(state: Path, content: bytes) -> None:
    board_folder(state).mkdir(parents=True)
    (board_folder(state) / "1.msgpack").write_bytes(content)
    one, two = Worker(state, 0, 2), Worker(state, 1, 2)
    one.answer(0.1)
    assert total(one.board.text(), "modelyard_requests_total") == 1
    assert one.board.report()["workers"] == {"wanted": 2, "ready": 0}
    assert total(two.board.text(), "modelyard_requests_total") == 1
    assert ready_workers(state, 2) == 0


def test_families_of_another_build_do_no_harm(state: Path) -> None:
    one, two = Worker(state, 0, 2), Worker(state, 1, 2)
    two.answer(0.1)
    two.board.write()
    place = read_place(state, 1)
    assert place is not None
    samples: dict[str, Any] = dict(place.samples)
    samples["modelyard_something_else_total"] = [(("a",), [1.0])]
    samples["modelyard_request_seconds"] = [(LABELS, [1.0, 2.0])]
    changed = msgspec.structs.replace(place, samples=samples)
    (board_folder(state) / "1.msgpack").write_bytes(msgspec.msgpack.encode(changed))
    assert total(one.board.text(), "modelyard_requests_total") == 1


def test_a_disk_that_takes_nothing_stops_nobody(state: Path, caplog: pytest.LogCaptureFixture) -> None:
    one = Worker(state, 0, 2)
    state.mkdir()
    board_folder(state).write_text("a file where the folder should be")
    one.answer(0.1)
    for _ in range(3):
        assert total(one.board.text(), "modelyard_requests_total") == 1
    assert len(caplog.records) == 1


def test_who_answers_is_told(state: Path) -> None:
    boards = [Worker(state, slot, 2) for slot in (0, 1)]
    assert ready_workers(state, 2) == 0
    try:
        boards[0].board.open()
        assert ready_workers(state, 2) == 1
        boards[1].board.open()
        assert ready_workers(state, 2) == 2
        assert boards[1].board.report()["workers"] == {"wanted": 2, "ready": 2}
        boards[0].health.ready = False
        boards[0].board.write()
        assert _ready(boards) == [1, 1]
    finally:
        for worker in boards:
            worker.board.close()
    assert ready_workers(state, 2) == 0


def _ready(workers: Sequence[Worker]) -> list[int]:
    return [worker.board.report()["workers"]["ready"] for worker in workers]
