"""An open loop's times: by the manual clock, whatever the server does."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from modelyard.core.clock import ManualClock
from modelyard.serve.load.schedule import OpenLoop, arrivals
from modelyard.serve.load.tally import Tally


@given(st.floats(0.5, 5000), st.floats(0.1, 3))
def test_constant_times(rate: float, seconds: float) -> None:
    times = arrivals("constant", rate, seconds)
    assert abs(len(times) - rate * seconds) <= 1 and times[0] == 0
    assert times[-1] < seconds + 1e-6
    assert np.allclose(np.diff(times), 1 / rate)


def test_poisson_times_are_poisson() -> None:
    times = arrivals("poisson", 1000, 20, seed=3)
    assert np.array_equal(times, arrivals("poisson", 1000, 20, seed=3))
    assert not np.array_equal(times[:10], arrivals("poisson", 1000, 20, seed=4)[:10])
    assert (np.diff(times) >= 0).all() and times[0] >= 0 and times[-1] < 20
    assert stats.kstest(np.diff(times), stats.expon(scale=1e-3).cdf).pvalue > 1e-3
    counts = np.histogram(times, bins=2000, range=(0, 20))[0]
    assert counts.var() / counts.mean() == pytest.approx(1, abs=0.15)


@pytest.mark.parametrize(
    ("rate", "seconds"), [(0, 1), (1, 0), (-1, 1), (math.inf, 1), (math.nan, 1), (1e9, 1)]
)
def test_impossible_rates(rate: float, seconds: float) -> None:
    with pytest.raises(ValueError, match="positive"):
        arrivals("constant", rate, seconds)


@given(st.lists(st.floats(0, 0.2), min_size=1, max_size=50))
def test_each_request_is_due_once_and_never_early(steps: list[float]) -> None:
    clock, loop = ManualClock(), OpenLoop(arrivals("poisson", 50, 5, seed=1))
    times = arrivals("poisson", 50, 5, seed=1).tolist()
    given_out: list[float] = []
    for step in steps:
        clock.advance(step)
        due = loop.due(clock.monotonic())
        assert all(when <= clock.monotonic() for when in due)
        given_out += due
        assert loop.next is None or loop.next > clock.monotonic()
    assert given_out == times[: len(given_out)]
    assert given_out + loop.due(99) == times and loop.next is None and loop.total == len(times)


def test_a_stall_is_charged_to_every_request_it_delayed() -> None:
    """Coordinated omission: one server, one at a time, 1 ms each, that stalls for a second in the middle."""
    clock, loop = ManualClock(), OpenLoop(arrivals("constant", 100, 10))
    tally = Tally(since=0.0, deadline=0.1)
    queue: list[float] = []
    while loop.next is not None or queue:
        queue += loop.due(clock.monotonic())
        if not queue:
            assert loop.next is not None
            clock.advance(loop.next - clock.monotonic())
            continue
        intended, sent = queue.pop(0), clock.monotonic()
        clock.advance(1.0 if abs(intended - 5.0) < 1e-9 else 0.001)
        tally.done(intended, sent, clock.monotonic(), 200, "")
    result = tally.result("open", 100, 1, 10, 0.0)
    # 100 requests came due in the stall and about 11 more until its backlog was gone: a tenth of all.
    assert result.latency.quantile(0.95) > 0.4
    assert result.latency.quantile(0.85) < 0.01
    # What a closed loop would have said: one slow request in a thousand.
    assert result.service.quantile(0.99) < 0.01
    assert 880 <= result.good <= 920 and result.answered == 1000
