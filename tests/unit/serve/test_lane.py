"""A lane hands every caller its own rows, whatever happens to the others."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelyard.core.errors import ModelyardError, RequestError
from modelyard.core.spec import Tensors
from modelyard.serve.cost import CostModel
from modelyard.serve.lane import Call


class Caller:
    def __init__(self, *values: float) -> None:
        self.values = values
        self.answers: list[Any] = []
        self.call = Call({"x": np.array(values, np.float32).reshape(-1, 1)}, len(values), self.done)

    def done(self, outputs: Tensors | None, error: ModelyardError | None) -> None:
        assert (outputs is None) != (error is None)
        self.answers.append(error if outputs is None else outputs["prediction"].ravel().tolist())

    def right(self) -> bool:
        return self.answers == [[value * 3 for value in self.values]]


def test_what_waits_while_one_runs_goes_together(bench: Any) -> None:
    served = bench.served(inline=False)
    callers = [Caller(float(number)) for number in range(5)]
    served.lane.submit(callers[0].call)
    bench.executor.run(1)
    for caller in callers[1:]:
        served.lane.submit(caller.call)
    bench.executor.run()
    assert served.session.batches == [1, 4]
    assert all(caller.right() for caller in callers)


def test_one_bad_item_fails_alone(bench: Any) -> None:
    served = bench.served()
    callers = [Caller(1.0), Caller(13.0), Caller(2.0, 3.0)]
    for caller in callers:
        served.lane.submit(caller.call)
    bench.executor.run()
    assert callers[0].right() and callers[2].right()
    assert "thirteen" in str(callers[1].answers)


def test_a_model_that_is_not_batched_runs_alone(bench: Any) -> None:
    served = bench.served(batchable=False)
    callers = [Caller(1.0), Caller(2.0, 3.0), Caller(4.0)]
    for caller in callers:
        served.lane.submit(caller.call)
    bench.executor.run()
    assert served.session.batches == [1, 2, 1]
    assert all(caller.right() for caller in callers)


def test_too_many_are_refused_at_once(bench: Any) -> None:
    served = bench.served(room=2)
    for number in range(2):
        served.lane.submit(Caller(float(number)).call)
    with pytest.raises(RequestError, match="limit") as caught:
        served.lane.submit(Caller(3.0).call)
    assert caught.value.status == 503
    assert caught.value.retry_after is not None


def test_an_output_of_another_length_is_an_error_not_a_mixture(bench: Any) -> None:
    served = bench.served()
    served.session.run = lambda inputs: {"prediction": np.zeros((1, 1))}
    callers = [Caller(1.0), Caller(2.0, 3.0)]
    for caller in callers:
        served.lane.submit(caller.call)
    bench.executor.run()
    assert callers[0].answers == [[0.0]], "alone, one row for one item is right"
    assert "item by item" in str(callers[1].answers)


class GatherSession:
    """Stands for an engine whose own error is no error of ours."""

    def __init__(self, inner: Any) -> None:
        self.signature = inner.signature

    def run(self, inputs: Tensors) -> Tensors:
        raise RuntimeError("engine failure\nwith a second line")


def test_an_engine_that_raises_anything_answers_everybody(bench: Any) -> None:
    served = bench.served()
    served.lane._session = GatherSession(served.session)
    caller = Caller(1.0)
    served.lane.submit(caller.call)
    bench.executor.run()
    assert "engine failure" in str(caller.answers[0])


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_no_answer_reaches_the_wrong_caller(data: st.DataObject) -> None:
    from importlib.util import module_from_spec, spec_from_file_location
    from pathlib import Path

    spec = spec_from_file_location("serve_bench", Path(__file__).with_name("conftest.py"))
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    bench = module.Bench()
    served = bench.served(inline=data.draw(st.booleans()), batch=data.draw(st.integers(1, 8)))
    callers = []
    for _ in range(data.draw(st.integers(1, 30))):
        values = data.draw(st.lists(st.integers(0, 15), min_size=1, max_size=4))
        caller = Caller(*map(float, values))
        callers.append(caller)
        served.lane.submit(caller.call)
        if data.draw(st.booleans()):
            caller.call.gone = True
        bench.executor.run(data.draw(st.integers(0, 2)))
    bench.executor.run()
    for caller in callers:
        if caller.call.gone and not caller.answers:
            continue
        assert caller.right() or (13.0 in caller.values and "thirteen" in str(caller.answers))
        assert len(caller.answers) == 1


def test_it_is_known_why_a_run_was_no_larger_and_how_long_its_calls_waited(bench: Any) -> None:
    from modelyard.serve.lane import WHYS
    from modelyard.serve.metrics import Counter

    served = bench.served(batch=4)
    lane = served.lane
    lane._released = {why: Counter() for why in WHYS}
    callers = [Caller(float(number)) for number in range(10)]
    for caller in callers:
        lane.submit(caller.call)
    bench.executor.run()
    assert served.session.batches == [4, 4, 2]
    assert {why: counter.value for why, counter in lane._released.items()} == {
        "drained": 1, "full": 2, "deadline": 0, "shape": 0,
    }  # fmt: skip
    lane.cost.fixed, lane.cost.item = 0.0, 1.0
    lane.cap = 4
    urgent, other = Caller(1.0), Caller(2.0)
    urgent.call.deadline = bench.clock.monotonic() + 1.5
    lane._busy = False
    for caller in (urgent, other):
        lane.submit(caller.call)
    bench.executor.run()
    assert served.session.batches[3:] == [1, 1] and lane._released["deadline"].value == 1


def test_a_run_is_as_large_as_pays_and_larger_where_many_wait(bench: Any) -> None:
    """Cost that grows with the items alone: nothing is gained from a batch but the call's own overhead."""

    class Known(CostModel):
        def observe(self, items: int, seconds: float) -> None:
            """The test's runs take nothing, which is not to be learned."""

    served = bench.served(batch=64, inline=False)
    served.lane.cost = Known(0.004)
    callers = [Caller(100.0 + number) for number in range(49)]
    served.lane.submit(callers[0].call)
    bench.executor.run(1)
    for caller in callers[1:]:
        served.lane.submit(caller.call)
    bench.executor.run()
    sizes = served.session.batches
    assert sizes[:4] == [1, 16, 10, 7] and sizes[-1] <= 4 and all(size >= 4 for size in sizes[1:-1])
    assert all(caller.right() for caller in callers)
