"""Many models in one process, and models that come and go; prints JSON.

    python many.py MODELS CYCLES

`MODELS` different small models are loaded as the server loads them (read, proved, warmed), each answers
cold, then one answers warm among all of them. Then `CYCLES` times a model is loaded, asked and let go.
"""

from __future__ import annotations

import gc
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
import serve_yard as yard

from modelyard.release.load import load_release
from modelyard.serve.lane import Call
from modelyard.serve.memory import give_back
from modelyard.serve.metrics import Metrics
from modelyard.serve.options import Limits
from modelyard.serve.pool import Served, make_ready


class Inline:
    """An executor for one thread."""

    def __init__(self) -> None:
        self.work: list[Any] = []
        self.soon = self.work.append

    def offload(self, work: Any, done: Any, **_: Any) -> None:
        self.work.append(lambda: done(work()))

    def run(self) -> None:
        while self.work:
            self.work.pop(0)()


def rss() -> float:
    text = Path("/proc/self/status").read_text()
    return int(text.split("VmRSS:")[1].split()[0]) / 1000


def ask(served: Served, inputs: Any, executor: Inline) -> float:
    began = time.perf_counter()
    served.lane.submit(Call(inputs, 1, lambda *_: None, alone=True))
    executor.run()
    return time.perf_counter() - began


def main() -> None:
    models, cycles = int(sys.argv[1]), int(sys.argv[2])
    place = yard.Yard.make(Path(tempfile.mkdtemp()) / "yard")
    executor, metrics, inputs = Inline(), Metrics(), yard.rows_of("mlp", 1)
    first = make_ready(
        "m", load_release(place.bundle("mlp", yard.mlp(0), 1)), executor, metrics, limits=Limits()
    )
    alone = np.array([ask(first, inputs, executor) for _ in range(5_000)])
    served, cold = [], []
    for seed in range(1, models + 1):
        bundle = place.bundle("mlp", yard.mlp(seed), seed)
        began = time.perf_counter()
        made = make_ready(f"m{seed}", load_release(bundle), executor, metrics, limits=Limits())
        ask(made, inputs, executor)
        cold.append(time.perf_counter() - began)
        served.append(made)
    gc.collect()
    give_back()
    among = np.array([ask(first, inputs, executor) for _ in range(5_000)])
    result = {
        "models": models,
        "rss_mb": round(rss(), 1),
        "cold_ms_p50": round(1e3 * float(np.median(cold)), 2),
        "cold_ms_p99": round(1e3 * float(np.quantile(cold, 0.99)), 2),
        "warm_p50_ratio": round(float(np.median(among) / np.median(alone)), 3),
        "warm_p99_ratio": round(float(np.quantile(among, 0.99) / np.quantile(alone, 0.99)), 3),
    }
    del served, made
    gc.collect()
    bundles = [place.bundle("mlp", yard.mlp(seed), seed) for seed in range(1, 11)]
    memory = []
    for cycle in range(cycles):
        made = make_ready("cycle", load_release(bundles[cycle % 10]), executor, metrics, limits=Limits())
        ask(made, inputs, executor)
        del made
        if cycle % 10 == 9:
            gc.collect()
            give_back()
            memory.append(rss())
    later = np.array(memory[len(memory) // 5 :])
    slope = float(np.polyfit(np.arange(len(later)) * 10, later, 1)[0]) if len(later) > 2 else 0.0
    result |= {"cycles": cycles, "slope_kb_a_cycle": round(1e3 * slope, 3),
               "noise_mb": round(float(later.std()), 2) if len(later) else 0.0,
               "rss_after_mb": round(memory[-1], 1) if memory else 0.0}  # fmt: skip
    print(json.dumps(result))


main()
