"""A window of a million rows and 20 columns, judged, against a plain scipy test a column.

    python benchmarks/bench_monitor.py [rows] [columns]

The plain alternative is what most scripts do: `scipy.stats.ks_2samp(reference, window)` column by column,
with the reference's raw values kept and sorted anew each time. Ours needs the reference's profile only.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable

import numpy as np
import pyarrow as pa
from scipy import stats

from modelyard.data.contract import Column, Contract
from modelyard.data.profile import profile
from modelyard.monitor.options import MonitorOptions
from modelyard.monitor.window import judge_window


def timed(call: Callable[[], object], repeats: int = 3) -> float:
    """The best of a few: the machine is shared."""
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - start)
    return best


def main(rows: int, width: int) -> None:
    rng = np.random.default_rng(0)
    names = [f"f{index}" for index in range(width)]
    columns = (*(Column(name, "number") for name in names), Column("y", "number", role="label"))
    contract = Contract("bench", columns)
    past = {name: rng.normal(size=rows) for name in names}
    live = {name: rng.normal(size=rows) for name in names}
    reference = profile(pa.table(past), contract, extra={"prediction": past["f0"]})
    log = pa.table({
        "id": pa.array(np.arange(rows)).cast(pa.string()),
        "time": pa.array(np.arange(rows), pa.timestamp("us", tz="UTC")),
        "outcome": pa.array(["ok"] * rows),
        "latency": rng.random(rows),
        "breaches": pa.ListArray.from_arrays(np.zeros(rows + 1, np.int32), pa.array([], pa.string())),
        "prediction": live["f0"],
        **{f"in_{name}": values for name, values in live.items()},
    })  # fmt: skip
    report = judge_window(log, None, reference, contract, [])
    assert report.quiet, report.alarms
    ours = timed(lambda: judge_window(log, None, reference, contract, [], MonitorOptions()))
    plain = timed(lambda: [stats.ks_2samp(past[name], live[name]).pvalue for name in names])
    print(json.dumps({
        "rows": rows,
        "columns": width,
        "judged_claims": len(report.verdicts),
        "modelyard_seconds": round(ours, 3),
        "scipy_loop_seconds": round(plain, 3),
        "times_faster": round(plain / ours, 2),
        "reference_bytes": len(json.dumps(reference.to_json())),
        "raw_reference_bytes": rows * width * 8,
    }, indent=2))  # fmt: skip


if __name__ == "__main__":
    given = [int(text) for text in sys.argv[1:3]]
    main(*given, *(1_000_000, 20)[len(given) :])
