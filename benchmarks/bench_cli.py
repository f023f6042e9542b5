"""How quick the door is: `import modelyard` and `modelyard --help`, beside `python -c pass`.

Each is a fresh process, in random turn, so that what the machine does meanwhile falls on all alike; the
medians' interval is by order statistics. The claims: the import under 100 ms, the help under 200 ms.

    .venv/bin/python benchmarks/bench_cli.py [--json]
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from pathlib import Path

COMMAND = str(Path(sys.executable).with_name("modelyard"))
CASES = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "import modelyard": [sys.executable, "-c", "import modelyard"],
    "modelyard --help": [COMMAND, "--help"],
    "modelyard run --help": [COMMAND, "run", "--help"],
}
LIMITS = {"import modelyard": 0.100, "modelyard --help": 0.200}
REPEATS = 41


def main() -> int:
    times: dict[str, list[float]] = {name: [] for name in CASES}
    order = list(CASES) * REPEATS
    random.Random(0).shuffle(order)  # noqa: S311 - an order, no secret
    for name in [*CASES, *order]:
        began = time.perf_counter()
        subprocess.run(CASES[name], check=True, stdout=subprocess.DEVNULL)
        times[name].append(time.perf_counter() - began)
    found = {}
    for name, every in times.items():
        values = sorted(every[1:])  # the first one of each warms the disk's cache
        middle = len(values) // 2
        found[name] = {"median": values[middle], "low": values[middle - 6], "high": values[middle + 6]}
    plain = found["python -c pass"]["median"]
    worst = 0
    for name, row in found.items():
        row["ratio"] = row["median"] / plain
        limit = LIMITS.get(name)
        row["holds"] = limit is None or row["median"] < limit
        worst |= not row["holds"]
        if "--json" not in sys.argv:
            bound = (
                ""
                if limit is None
                else f"   at most {limit * 1e3:.0f} ms: {'holds' if row['holds'] else 'FAILS'}"
            )
            spread = f"[{row['low'] * 1e3:.1f}, {row['high'] * 1e3:.1f}]"
            print(f"{name:<22} {row['median'] * 1e3:6.1f} ms {spread}   {row['ratio']:.1f}x python{bound}")
    if "--json" in sys.argv:
        print(json.dumps(found))
    return worst


if __name__ == "__main__":
    sys.exit(main())
