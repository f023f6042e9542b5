"""What an answer costs: latency, throughput, speed-up, peak memory and size, on machines that are noisy."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from modelyard.core.clock import SYSTEM_CLOCK, Clock
from modelyard.core.errors import ModelyardError
from modelyard.measure.exact import order_statistics
from modelyard.measure.measurement import Measurement

Call: TypeAlias = Callable[[], object]
Floats: TypeAlias = npt.NDArray[np.float64]

_SHORT = 50e-6
"""Calls below this many seconds are timed in batches: the clock and the loop would weigh too much."""
_BATCH = 200e-6
_FEWEST = 8
_RESAMPLES = 2000


def latency(
    call: Call,
    *,
    repeats: int = 500,
    warmup: int = 10,
    clock: Clock = SYSTEM_CLOCK,
    confidence: float = 0.95,
    of: str = "",
) -> tuple[Measurement, Measurement]:
    """Median and 99th percentile of a call's duration in seconds: `latency_p50` and `latency_p99`.

    The intervals are exact ones from order statistics, taking calls as independent; an end that so few calls
    cannot bound is `None` (the upper end of p99 needs 368 calls). What the call raises goes through.
    """
    if repeats < 1:
        raise ValueError(f"at least one repeat, got {repeats}")
    for _ in range(warmup):
        call()
    taken = np.sort([_seconds(call, 1, clock) for _ in range(repeats)])
    found = []
    for name, quantile in (("latency_p50", 0.5), ("latency_p99", 0.99)):
        low, high = order_statistics(taken, quantile, confidence)
        value = float(np.quantile(taken, quantile))
        found.append(Measurement(name, value, low, high, "s", repeats, confidence, "order-statistics", of))
    return found[0], found[1]


def throughput(
    call: Call,
    items: int,
    *,
    budget_seconds: float = 1.0,
    warmup: int = 3,
    clock: Clock = SYSTEM_CLOCK,
    confidence: float = 0.95,
    of: str = "",
) -> Measurement:
    """Items per second of a call that handles `items` of them, called again and again for the budget.

    The value is all items over all time; the interval is a circular block bootstrap over batches of calls.
    """
    if items < 1:
        raise ValueError(f"a call handles at least one item, got {items}")
    for _ in range(warmup):
        call()
    batch = _batch(call, clock)
    taken: list[float] = []
    end = clock.monotonic() + budget_seconds
    while len(taken) < _FEWEST or clock.monotonic() < end:
        taken.append(_seconds(call, batch, clock))
        if len(taken) >= 1_000_000:
            break
    durations = np.array(taken)
    n = len(durations) * batch
    if durations.sum() <= 0:
        return _clock_stood("throughput", "items/s", confidence, of)
    means = np.mean(durations[_blocks(durations, _RESAMPLES if len(durations) < 5000 else 200, 0)], axis=1)
    rate = items * batch
    slow, fast = np.quantile(means, [(1 + confidence) / 2, (1 - confidence) / 2])
    return Measurement(
        "throughput",
        float(rate / durations.mean()),
        float(rate / slow),
        float(rate / fast),
        "items/s",
        n,
        confidence,
        "block-bootstrap",
        of,
    )


def speedup(
    reference: Call,
    candidate: Call,
    *,
    pairs: int = 200,
    warmup: int = 5,
    budget_seconds: float = 5.0,
    clock: Clock = SYSTEM_CLOCK,
    seed: int = 0,
    confidence: float = 0.95,
    of: str = "",
) -> Measurement:
    """How many times faster the candidate is than the reference (above 1 = faster).

    Both are warmed, then timed side by side in pairs whose order is drawn, so that a machine that slows down
    slows both; calls under 50 µs are timed in batches. The value is the median ratio of a pair. Its interval
    is a circular block bootstrap of the median log ratio whose block length follows the measured
    autocorrelation (Politis and White 2004), because noise comes in bursts. Stops after `pairs` pairs or
    `budget_seconds`, whichever comes first, but not before 8 pairs.
    """
    if pairs < 2:
        raise ValueError(f"at least two pairs, got {pairs}")
    for _ in range(warmup):
        reference()
        candidate()
    batches = (_batch(reference, clock), _batch(candidate, clock))
    sides = (reference, candidate)
    rng = np.random.default_rng(seed)
    end = clock.monotonic() + budget_seconds
    ratios: list[float] = []
    while len(ratios) < pairs and (len(ratios) < min(_FEWEST, pairs) or clock.monotonic() < end):
        taken = [0.0, 0.0]
        for side in rng.permutation(2):
            taken[side] = _seconds(sides[side], batches[side], clock) / batches[side]
        if min(taken) <= 0:
            return _clock_stood("speedup", "x", confidence, of)
        ratios.append(math.log(taken[0] / taken[1]))
    logs = np.array(ratios)
    medians = np.median(logs[_blocks(logs, _RESAMPLES, seed)], axis=1)
    low, high = np.quantile(medians, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Measurement(
        "speedup",
        math.exp(float(np.median(logs))),
        math.exp(float(low)),
        math.exp(float(high)),
        "x",
        len(logs),
        confidence,
        "paired-block-bootstrap",
        of,
    )


def peak_memory(target: str, *, stdin: bytes = b"", timeout: float = 120.0, of: str = "") -> Measurement:
    """Peak resident bytes of a fresh Python process that calls `module:function` with the bytes given.

    The whole process is counted, interpreter and imports included (Linux's VmHWM, elsewhere the maximum
    resident set size). Raises `ModelyardError` when the function fails or takes over `timeout` seconds.
    """
    module, _, function = target.partition(":")
    if not module or not function:
        raise ValueError(f"the target is module:function, got {target!r}")
    command = [sys.executable, "-c", _CHILD, module, function]
    try:
        done = subprocess.run(command, input=stdin, capture_output=True, timeout=timeout, check=False)
    except subprocess.TimeoutExpired as error:
        raise ModelyardError(
            "the process whose memory is measured did not end", value=target, rule=f"within {timeout:g} s"
        ) from error
    if done.returncode != 0:
        last = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
        raise ModelyardError(
            "the process whose memory is measured failed", value=target, rule=last[0] if last else None
        )
    peak = float(done.stdout.split()[-1])
    return Measurement("peak_memory", peak, unit="bytes", n=1, method="peak of a fresh process", of=of)


def size(data: bytes | int, *, of: str = "") -> Measurement:
    """The size of a file's bytes (or a known count of them), exactly.

    >>> size(b"abc").value
    3.0
    """
    value = data if isinstance(data, int) else len(data)
    return Measurement("model_size", float(value), unit="bytes", n=1, method="exact", of=of)


_CHILD = """
import importlib, sys
module, function = sys.argv[1:]
getattr(importlib.import_module(module), function)(sys.stdin.buffer.read())
try:
    with open("/proc/self/status") as status:
        peak = next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))
except (OSError, StopIteration):
    import resource
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
print("\\n", peak)
"""


def _seconds(call: Call, batch: int, clock: Clock) -> float:
    start = clock.monotonic()
    for _ in range(batch):
        call()
    return clock.monotonic() - start


def _batch(call: Call, clock: Clock) -> int:
    """How many calls to time together: one, unless a call is short."""
    once = min(_seconds(call, 1, clock) for _ in range(3))
    if once >= _SHORT or once <= 0:
        return 1
    return min(1000, math.ceil(_BATCH / once))


def _blocks(values: Floats, resamples: int, seed: int) -> npt.NDArray[np.int64]:
    """Indices [resamples, n] of a circular block bootstrap (Politis and Romano 1992)."""
    n = len(values)
    length = _block_length(values)
    starts = np.random.default_rng(seed).integers(0, n, size=(resamples, math.ceil(n / length)))
    picked = (starts[:, :, None] + np.arange(length)) % n
    return np.asarray(picked.reshape(resamples, -1)[:, :n])


def _block_length(values: Floats) -> int:
    """The best block for a series that decays like AR(1): (6 r² / (1 - r²)²)^(1/3) n^(1/3).

    The autocorrelation r is taken of the signs around the median, which outliers cannot sway.
    """
    n = len(values)
    sign = np.sign(values - np.median(values))
    power = float(np.dot(sign, sign))
    r = min(0.95, max(0.0, float(np.dot(sign[1:], sign[:-1])) / power)) if power else 0.0
    # Signs understate the correlation of the values behind them (arcsine law of Gaussian pairs).
    r = math.sin(r * math.pi / 2)
    best = (6 * r**2 / (1 - r**2) ** 2) ** (1 / 3) * n ** (1 / 3) if r else 1.0
    return max(1, min(math.ceil(best), n // 4))


def _clock_stood(name: str, unit: str, confidence: float, of: str) -> Measurement:
    return Measurement(
        name, math.nan, None, None, unit, 0, confidence, "no value: the clock did not move", of
    )
