"""Nobody gets another's answer: callers who leave or run out of time, failing items, a model that mixes."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import module_from_spec, spec_from_file_location
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from modelyard.core.errors import ModelyardError, RequestError
from modelyard.core.spec import Tensors
from modelyard.serve.isolation import independent
from modelyard.serve.lane import PROOF, Call
from modelyard.serve.metrics import Counter


def _bench() -> Any:
    spec = spec_from_file_location("serve_bench_isolation", Path(__file__).with_name("conftest.py"))
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Bench()


class Caller:
    def __init__(self, values: list[int], deadline: float, sink: Any) -> None:
        self.values = values
        self.answers: list[Any] = []
        inputs = {"x": np.array(values, np.float32).reshape(-1, 1)}
        self.call = Call(inputs, len(values), self.done, deadline=deadline, sink=sink)

    def done(self, outputs: Tensors | None, error: ModelyardError | None) -> None:
        assert (outputs is None) != (error is None)
        self.answers.append(error if outputs is None else outputs["prediction"].ravel().tolist())

    @property
    def right(self) -> bool:
        return self.answers == [[value * 3.0 for value in self.values]]


class Account:
    """A sink that counts, as the plane does."""

    def __init__(self) -> None:
        self.closed = 0

    def ran(self, run: Any) -> None:
        self.closed += len(run.calls)
        assert run.items == sum(call.rows for call in run.calls)

    def left(self, call: Call, *, late: bool) -> None:
        self.closed += 1


class Callers(RuleBasedStateMachine):
    """Callers come, leave and run out of time while runs begin, end and fail."""

    @initialize(inline=st.booleans(), batch=st.integers(1, 8), room=st.integers(4, 40))
    def begin(self, inline: bool, batch: int, room: int) -> None:
        self.bench = _bench()
        self.lane = self.bench.served(inline=inline, batch=batch, room=room).lane
        self.sinks = (Account(), Account())
        self.callers: list[Caller] = []
        self.refused = 0

    @rule(
        values=st.lists(st.integers(0, 15), min_size=1, max_size=4),
        patience=st.sampled_from([inf, inf, 0.5, 2.0]),
        sink=st.integers(0, 1),
    )
    def come(self, values: list[int], patience: float, sink: int) -> None:
        deadline = self.bench.clock.monotonic() + patience
        caller = Caller(values, deadline, self.sinks[sink])
        try:
            self.lane.submit(caller.call)
        except RequestError as error:
            assert error.status == 503 and error.retry_after is not None
            self.refused += 1
            return
        self.callers.append(caller)

    @precondition(lambda self: self.callers)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        data.draw(st.sampled_from(self.callers)).call.gone = True

    @rule(seconds=st.sampled_from([0.1, 1.0]))
    def wait(self, seconds: float) -> None:
        self.bench.clock.advance(seconds)

    @rule(steps=st.integers(1, 3))
    def run(self, steps: int) -> None:
        self.bench.executor.run(steps)

    @invariant()
    def nobody_gets_two_answers_or_anothers(self) -> None:
        for caller in getattr(self, "callers", ()):
            assert len(caller.answers) <= 1
            if caller.answers and isinstance(caller.answers[0], list):
                assert caller.right

    def teardown(self) -> None:
        if not hasattr(self, "lane"):
            return
        self.bench.executor.run()
        for caller in self.callers:
            if caller.call.gone and not caller.answers:
                continue
            assert len(caller.answers) == 1
            late = "deadline" in str(caller.answers[0]) and caller.call.deadline < inf
            failed = 13 in caller.values and "thirteen" in str(caller.answers[0])
            assert caller.right or late or failed
        assert self.lane.waiting == 0
        assert sum(sink.closed for sink in self.sinks) == len(self.callers)


TestCallers = Callers.TestCase
TestCallers.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


class MeanSession:
    """Takes the batch's mean away, as batch norm in training mode does."""

    def __init__(self, inner: Any) -> None:
        self.signature = inner.signature
        self.batches: list[int] = []

    def run(self, inputs: Tensors, outputs: Any = None) -> Tensors:
        self.batches.append(len(inputs["x"]))
        return {"prediction": inputs["x"] * 3 - (inputs["x"].mean() if self.bad else inputs["x"])}

    bad = True


def test_a_model_that_mixes_its_batch_is_found_before_it_serves(
    bench: Any, inputs: Callable[..., Tensors]
) -> None:
    session = MeanSession(bench.served().session)
    assert not independent(session, inputs(1, 2, 3, 4))
    session.bad = False
    assert independent(session, inputs(1, 2, 3, 4))


def test_a_model_that_mixes_its_batch_is_found_while_it_serves(bench: Any) -> None:
    session = MeanSession(bench.served().session)
    served = bench.served(session=session)
    served.lane._broken = Counter()
    session.bad = False
    answers: list[Any] = []

    def ask(count: int) -> None:
        for number in range(count):
            served.lane.submit(
                Call(
                    {"x": np.full((1, 1), number, np.float32)},
                    1,
                    lambda out, _: answers.append(out["prediction"][0, 0]),
                )
            )
        bench.executor.run()

    for _ in range(15):
        ask(2)
    assert served.lane.batchable
    session.bad = True
    answers.clear()
    ask(3)
    assert answers == [0.0, 2.0, 4.0], "the batch in which it was found is answered one by one"
    assert not served.lane.batchable and "depended" in served.lane.why_single
    assert served.lane._broken.value == 1
    session.batches.clear()
    ask(3)
    assert session.batches == [1, 1, 1]
    assert PROOF > 15


def test_an_open_lane_refuses_what_cannot_be_in_time(bench: Any) -> None:
    lane = bench.served(inline=False).lane
    lane.cost.fixed, lane.cost.item = 0.0, 0.1
    lane._set_cap()
    done: list[Any] = []

    def call(deadline: float) -> Call:
        return Call(
            {"x": np.ones((1, 1), np.float32)}, 1, lambda *answer: done.append(answer), deadline=deadline
        )

    now = bench.clock.monotonic()
    for _ in range(5):
        lane.submit(call(inf))
    with pytest.raises(RequestError, match="too late") as caught:
        lane.submit(call(now + 0.3))
    assert caught.value.status == 503 and 0.3 < (caught.value.retry_after or 0) < 1
    lane.submit(call(now + 5.0))
    bench.executor.run()
    assert len(done) == 6
