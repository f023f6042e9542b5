"""Rows a second of `validate`, beside plain loops over the same table that check the same rules.

    python benchmarks/bench_validate.py [rows]

The plain alternatives are pyarrow.compute, rule by rule, and pandas. All count the rows that break each rule;
only `validate` also looks up examples, checks that the key is unique, and says what it did not check.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from modelyard.data.contract import Column, Contract
from modelyard.data.validate import validate

CITIES = tuple(f"city {place}" for place in range(20))


def contract(limit: float) -> Contract:
    numbers = [
        Column(f"n{place}", "number", missing_max=0.1, minimum=-limit, maximum=limit) for place in range(4)
    ]
    integers = [Column(f"i{place}", "integer", minimum=0, maximum=98) for place in range(2)]
    categories = [Column(f"c{place}", "category", missing_max=0.1, categories=CITIES) for place in range(2)]
    flag, label = Column("b", "boolean"), Column("y", "category", "label", categories=("0", "1"))
    return Contract("bench", (*numbers, *integers, *categories, flag, label))


def table(rows: int, strays: int) -> pa.Table:
    rng = np.random.default_rng(0)
    columns: dict[str, object] = {}
    for place in range(4):
        columns[f"n{place}"] = pa.array(rng.normal(size=rows), mask=rng.random(rows) < 0.05)
    for place in range(2):
        columns[f"i{place}"] = rng.integers(0, 99 + strays, rows)
    for place in range(2):
        columns[f"c{place}"] = pa.array(np.array([*CITIES, "elsewhere"])[rng.integers(0, 20 + strays, rows)])
    columns["b"] = rng.random(rows) < 0.5
    columns["y"] = pa.array(np.array(["0", "1"])[rng.integers(0, 2, rows)])
    return pa.table(columns)


def with_arrow(data: pa.Table, promised: Contract) -> list[int]:
    broken = []
    for column in promised.columns:
        values = data.column(column.name)
        missing = pc.is_null(values, nan_is_null=pa.types.is_floating(values.type))
        broken.append(pc.sum(missing).as_py())
        if column.minimum is not None:
            broken.append(pc.sum(pc.less(values, column.minimum)).as_py())
            broken.append(pc.sum(pc.greater(values, column.maximum)).as_py())
        if pa.types.is_floating(values.type):
            broken.append(pc.sum(pc.is_inf(values)).as_py())
        if column.categories:
            known = pc.is_in(values, pa.array([*column.categories, None]))
            broken.append(pc.sum(pc.invert(known)).as_py())
    return broken


def with_pandas(frame: pd.DataFrame, promised: Contract) -> list[int]:
    broken = []
    for column in promised.columns:
        values = frame[column.name]
        broken.append(int(values.isna().sum()))
        if column.minimum is not None:
            broken.append(int((values < column.minimum).sum()))
            broken.append(int((values > column.maximum).sum()))
        if values.dtype.kind == "f":
            broken.append(int(np.isinf(values).sum()))
        if column.categories:
            broken.append(int((~values.isin(column.categories) & values.notna()).sum()))
    return broken


def best(call: Callable[[], object], repeats: int = 5) -> float:
    """Seconds of the fastest of several runs: the others had to share the machine."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


def main() -> None:
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else 2_000_000
    for kind, strays, limit in (("good data", 0, 9.0), ("faults in 8 columns", 1, 4.0)):
        data, promised = table(rows, strays), contract(limit)
        frame = data.to_pandas()
        found = validate(data, promised)
        print(f"{kind}: {rows:,} rows x {data.num_columns} columns, {len(found.checked)} checks")
        ways: dict[str, Callable[[], object]] = {
            "validate": partial(validate, data, promised),
            "pyarrow.compute": partial(with_arrow, data, promised),
            "pandas": partial(with_pandas, frame, promised),
        }
        seconds = {name: best(call) for name, call in ways.items()}
        for name, taken in seconds.items():
            ratio = taken / seconds["validate"]
            print(f"  {name:16s} {taken:6.3f} s {rows / taken / 1e6:6.1f} M rows/s {ratio:5.1f} x ours")


if __name__ == "__main__":
    main()
