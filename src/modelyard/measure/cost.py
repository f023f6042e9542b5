"""What an answer costs: latency, throughput, speed-up, peak memory and size, on machines that are never quiet."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from modelyard.core.clock import SYSTEM_CLOCK, Clock
from modelyard.measure.measurement import Measurement

Call: TypeAlias = Callable[[], object]


def latency(
    call: Call, *, repeats: int = 200, warmup: int = 10, clock: Clock = SYSTEM_CLOCK, confidence: float = 0.95,
    of: str = "",
) -> tuple[Measurement, Measurement]:  # fmt: skip
    """Median and 99th percentile of a call's duration in seconds (`latency_p50`, `latency_p99`)."""
    raise NotImplementedError


def throughput(
    call: Call, items: int, *, budget_seconds: float = 1.0, warmup: int = 3, clock: Clock = SYSTEM_CLOCK,
    confidence: float = 0.95, of: str = "",
) -> Measurement:  # fmt: skip
    """Items per second of a call that handles `items` of them."""
    raise NotImplementedError


def speedup(
    reference: Call, candidate: Call, *, pairs: int = 200, warmup: int = 5, budget_seconds: float = 5.0,
    clock: Clock = SYSTEM_CLOCK, seed: int = 0, confidence: float = 0.95, of: str = "",
) -> Measurement:  # fmt: skip
    """How many times faster the candidate is (above 1 = faster), from interleaved pairs."""
    raise NotImplementedError


def peak_memory(target: str, *, stdin: bytes = b"", timeout: float = 120.0, of: str = "") -> Measurement:
    """Peak resident bytes of a fresh Python process that runs `module:function` on the bytes given."""
    raise NotImplementedError


def size(data: bytes | int, *, of: str = "") -> Measurement:
    """The size of a file's bytes, exactly."""
    value = data if isinstance(data, int) else len(data)
    return Measurement("model_size", float(value), unit="bytes", n=1, method="exact", of=of)
