"""Cost with a clock that the test moves, and once on the real machine."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest

from modelyard.core.clock import SYSTEM_CLOCK, ManualClock
from modelyard.core.errors import ModelyardError
from modelyard.measure import cost


class Work:
    """A call that takes as long as it is told, in the time of a manual clock."""

    def __init__(self, clock: ManualClock, seconds: list[float] | float) -> None:
        self.clock = clock
        self.seconds = seconds if isinstance(seconds, list) else [seconds]
        self.calls = 0

    def __call__(self) -> None:
        self.clock.advance(self.seconds[self.calls % len(self.seconds)])
        self.calls += 1


def test_latency_quantiles_and_their_intervals() -> None:
    clock = ManualClock()
    work = Work(clock, [0.001 * step for step in range(1, 1001)])
    p50, p99 = cost.latency(work, repeats=1000, warmup=0, clock=clock)
    assert p50.value == pytest.approx(0.5005)
    assert p99.value == pytest.approx(0.990, abs=0.001)
    assert p50.low is not None and p50.high is not None and p50.low < 0.5 < p50.high
    assert p99.low is not None and p99.high is not None and p99.low < 0.99 < p99.high
    assert (p50.metric, p99.metric, p50.unit) == ("latency_p50", "latency_p99", "s")


def test_warm_up_is_not_measured() -> None:
    clock = ManualClock()
    work = Work(clock, [9.0] * 5 + [0.001] * 95)
    assert cost.latency(work, repeats=95, warmup=5, clock=clock)[1].value == pytest.approx(0.001)


def test_throughput_is_items_over_time() -> None:
    clock = ManualClock()
    found = cost.throughput(Work(clock, [0.01, 0.03]), 8, budget_seconds=2.0, clock=clock)
    assert found.value == pytest.approx(400, rel=0.02)
    assert found.low is not None and found.high is not None and found.low < 400 < found.high
    assert found.unit == "items/s"


def test_speedup_of_known_ratio() -> None:
    clock = ManualClock()
    found = cost.speedup(Work(clock, 0.003), Work(clock, 0.001), clock=clock)
    assert found.value == pytest.approx(3)
    assert (found.low, found.high) == (pytest.approx(3), pytest.approx(3))


def test_short_calls_are_timed_in_batches() -> None:
    clock = ManualClock()
    work = Work(clock, 1e-6)
    found = cost.speedup(work, Work(clock, 2e-6), pairs=20, clock=clock)
    assert found.value == pytest.approx(0.5)
    assert work.calls >= 20 * 200


def test_the_budget_ends_it_but_not_before_eight_pairs() -> None:
    clock = ManualClock()
    assert cost.speedup(Work(clock, 1.0), Work(clock, 1.0), budget_seconds=0.5, clock=clock).n == 8
    assert cost.speedup(Work(clock, 0.01), Work(clock, 0.01), budget_seconds=0.5, clock=clock).n in (25, 26)


def test_a_slow_spell_of_the_machine_does_not_decide() -> None:
    clock = ManualClock()
    # Every third stretch of calls the machine is five times slower, for both.
    spell = [0.001] * 40 + [0.005] * 20
    found = cost.speedup(Work(clock, spell), Work(clock, spell), clock=clock)
    assert found.low is not None and found.high is not None
    assert found.low <= 1 <= found.high


@pytest.mark.parametrize("persistence", [0.0, 0.9])
def test_equal_speed_in_bursty_noise_rarely_looks_faster(persistence: float) -> None:
    faster = 0
    for run in range(30):
        rng = np.random.default_rng(run)
        clock = ManualClock()
        noise = np.zeros(600)
        for step in range(1, 600):
            noise[step] = persistence * noise[step - 1] + rng.normal(0, 0.3)
        # The noise hits one side of the pair only: the worst that bursts can do.
        reference = Work(clock, (0.001 * np.exp(noise)).tolist())
        found = cost.speedup(reference, Work(clock, 0.001), pairs=150, clock=clock, seed=run)
        assert found.low is not None
        faster += found.low > 1
    # One end of a 95 % interval: one of 40 is expected.
    assert faster <= (4 if persistence == 0 else 6)


def test_a_clock_that_stands_gives_no_value() -> None:
    clock = ManualClock()
    found = cost.speedup(lambda: None, lambda: None, clock=clock)
    assert math.isnan(found.value)
    assert "clock did not move" in found.method


def test_the_same_seed_gives_the_same_interval() -> None:
    def once() -> object:
        clock = ManualClock()
        taken = np.random.default_rng(0).gamma(5, 0.001, 500).tolist()
        return cost.speedup(Work(clock, taken), Work(clock, taken[::-1]), clock=clock, seed=3)

    assert once() == once()


def test_what_a_call_raises_goes_through() -> None:
    def broken() -> None:
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        cost.latency(broken)


@pytest.mark.parametrize(
    ("function", "arguments"), [(cost.latency, {"repeats": 0}), (cost.throughput, {"items": 0})]
)
def test_wrong_arguments_are_refused(function: object, arguments: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="at least one"):
        function(lambda: None, **arguments)  # type: ignore[operator]


def test_peak_memory_counts_what_the_function_holds() -> None:
    small = cost.peak_memory("zlib:decompress", stdin=__import__("zlib").compress(b"x"))
    large = cost.peak_memory("zlib:decompress", stdin=__import__("zlib").compress(bytes(60_000_000)))
    assert 4e6 < small.value < 60e6
    assert large.value - small.value > 50e6


def test_peak_memory_tells_why_it_failed() -> None:
    with pytest.raises(ModelyardError, match="JSONDecodeError"):
        cost.peak_memory("json:loads", stdin=b"{")
    with pytest.raises(ValueError, match="module:function"):
        cost.peak_memory("json")


def test_size_is_exact() -> None:
    assert (cost.size(b"12345").value, cost.size(7).value, cost.size(b"").unit) == (5.0, 7.0, "bytes")


@pytest.mark.serial
def test_a_real_difference_is_seen_on_this_machine() -> None:
    block = np.random.default_rng(0).normal(size=(120, 120))

    def once() -> None:
        np.linalg.slogdet(block)

    def twice() -> None:
        np.linalg.slogdet(block)
        np.linalg.slogdet(block)

    start = time.perf_counter()
    found = cost.speedup(twice, once, budget_seconds=1.0, clock=SYSTEM_CLOCK)
    assert found.low is not None and found.low > 1.3
    assert time.perf_counter() - start < 5
