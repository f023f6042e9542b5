"""The plane and the router: who answers, what is recorded, what is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from modelyard.core.errors import RequestError
from modelyard.release.policy import Canary, Shadow, Single
from modelyard.serve.plane import Plane, Question, check_inputs, check_outputs
from modelyard.serve.record import seconds_of
from modelyard.serve.router import Endpoint, Router

A, B = "sha256:" + "a" * 64, "sha256:" + "b" * 64
Inputs = Callable[..., dict[str, np.ndarray]]


def make(bench: Any, policy: Any, **shadow: Any) -> tuple[Plane, Endpoint]:
    releases = {A: bench.served("a", "1"), B: bench.served("b", "2", **shadow)}
    router = Router(("triple", "late"))
    router.swap(Endpoint("triple", 5, policy, {digest: releases[digest] for digest in policy.releases}))
    return Plane(router, bench.metrics, bench.records, bench.clock, name="p"), router.endpoints["triple"]


def ask(plane: Plane, endpoint: Endpoint, inputs: Any, key: str = "k") -> list[Any]:
    answers: list[Any] = []
    rows = len(inputs["x"]) if "x" in inputs else 1
    question = Question("triple", plane.new_id(), inputs, rows, plane._clock.monotonic())
    chosen = plane.router.choose(endpoint, key)
    plane.ask(question, chosen, lambda outputs, error: answers.append(error or outputs))
    return answers


def test_an_answer_is_recorded_and_counted(bench: Any, inputs: Inputs) -> None:
    plane, endpoint = make(bench, Single(A))
    answers = ask(plane, endpoint, inputs(1, 2))
    assert answers == [] and plane.open == 1
    bench.clock.advance(0.25)
    bench.executor.run()
    assert answers[0]["prediction"].ravel().tolist() == [3.0, 6.0]
    assert plane.open == 0
    text = bench.metrics.text().decode()
    (record,) = bench.records
    assert (record.outcome, record.arm, record.rows, seconds_of([record]).tolist(), record.time) == (
        "ok", "primary", [2], [0.25], 1_000.25,
    )  # fmt: skip
    labels = f'{{endpoint="triple",release="{A}",version="1",arm="primary",outcome="ok"}}'
    assert f"modelyard_requests_total{labels} 1\n" in text
    assert f"modelyard_items_total{labels} 2\n" in text


def test_a_failed_run_is_an_error_and_recorded(bench: Any, inputs: Inputs) -> None:
    plane, endpoint = make(bench, Single(A))
    answers = ask(plane, endpoint, inputs(13))
    bench.executor.run()
    assert "thirteen" in str(answers[0])
    plane.settle()
    assert bench.records[0].outcome == "failed" and bench.records[0].outputs == {}


def test_shadows_are_asked_and_not_heard(bench: Any, inputs: Inputs) -> None:
    plane, endpoint = make(bench, Shadow(A, B), inline=False)
    answers = ask(plane, endpoint, inputs(1))
    bench.executor.run()
    assert len(answers) == 1
    plane.settle()
    assert {(record.arm, record.by.version) for record in bench.records} == {
        ("primary", "1"),
        ("shadow", "2"),
    }


def test_a_shadow_that_is_full_does_not_fail_the_primary(bench: Any, inputs: Inputs) -> None:
    plane, endpoint = make(bench, Shadow(A, B), room=1)
    every = [ask(plane, endpoint, inputs(number)) for number in (1, 2, 3)]
    bench.executor.run()
    assert [len(answers) for answers in every] == [1, 1, 1]


def test_shadows_in_work_are_bounded(bench: Any, inputs: Inputs) -> None:
    plane, endpoint = make(bench, Shadow(A, B))
    plane._shadows = 1
    for number in (1, 2, 3):
        ask(plane, endpoint, inputs(number))
    bench.executor.run()
    assert 'modelyard_shed_total{endpoint="triple",why="shadow"} 2' in bench.metrics.text().decode()
    assert [record.arm for record in bench.records].count("shadow") == 1


def test_a_canary_is_sticky(bench: Any) -> None:
    plane, endpoint = make(bench, Canary(A, B, 0.5))
    sides = {f"c{number}": plane.router.choose(endpoint, f"c{number}").answer.version for number in range(50)}
    assert set(sides.values()) == {"1", "2"}
    assert all(plane.router.choose(endpoint, key).answer.version == side for key, side in sides.items())
    assert plane.router.choose(endpoint, "c0", "2").answer.version == "2"


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({}, "missing"),
        ({"x": np.zeros((1, 1))}, "datatype"),
        ({"x": np.zeros((1, 2), np.float32)}, "shape"),
        ({"x": np.zeros(1, np.float32)}, "shape"),
        ({"x": np.zeros((1, 1), np.float32), "z": np.zeros(1)}, "'z'"),
    ],
)
def test_inputs_that_do_not_fit_are_refused_by_name(bench: Any, values: Any, word: str) -> None:
    plane, endpoint = make(bench, Single(A))
    with pytest.raises(RequestError, match=word) as caught:
        ask(plane, endpoint, values)
    assert caught.value.status == 400
    assert plane.open == 0
    with pytest.raises(RequestError, match=word):
        check_inputs(endpoint.champion, values)


def test_names_that_are_not_there(bench: Any) -> None:
    plane, endpoint = make(bench, Single(A))
    with pytest.raises(RequestError, match="did you mean 'prediction'"):
        check_outputs(endpoint.champion, ["predicton"])
    with pytest.raises(RequestError, match="did you mean 'triple'") as caught:
        plane.router.endpoint("tripel")
    assert caught.value.status == 404
    with pytest.raises(RequestError, match="not loaded") as caught:
        plane.router.endpoint("late")
    assert (caught.value.status, caught.value.retry_after) == (503, 1.0)
    with pytest.raises(RequestError, match="version") as caught:
        plane.router.choose(endpoint, "k", "9")
    assert caught.value.status == 404


def test_a_policy_is_not_served_without_its_releases(bench: Any) -> None:
    with pytest.raises(ValueError, match="not loaded"):
        Endpoint("e", 1, Single(A), {})


def test_ids_differ(bench: Any) -> None:
    plane, _ = make(bench, Single(A))
    assert len({plane.new_id() for _ in range(1_000)}) == 1_000
