"""Runs every test and closes with one line of counts.

Two passes: first everything that may share the machine, one process a core; then the tests marked
`serial`, which measure time or own the machine, alone.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).parents[1]
PATHS = ["tests", "src/modelyard", "--doctest-modules"]


def main() -> int:
    extra = sys.argv[1:]
    counts = {"passed": 0, "failed": 0, "skipped": 0}
    with tempfile.TemporaryDirectory() as folder:
        passes = [
            ["-m", "not serial", "-n", str(min(os.cpu_count() or 1, 8)), "--dist", "loadfile"],
            ["-m", "serial", "-p", "no:xdist"],
        ]
        worst = 0
        for number, options in enumerate(passes):
            report = Path(folder) / f"{number}.xml"
            command = [sys.executable, "-m", "pytest", *PATHS, *options, f"--junitxml={report}", *extra]
            code = subprocess.run(command, cwd=ROOT, check=False).returncode
            worst = max(worst, 0 if code == 5 else code)
            if not report.exists():
                return worst or 1
            _add(counts, report)
    if not counts["passed"]:
        worst = worst or 1
    print(", ".join(f"{count} {name}" for name, count in counts.items()))
    return worst


def _add(counts: dict[str, int], report: Path) -> None:
    # The file was written by pytest a moment ago; it is not input from outside.
    for suite in ElementTree.parse(report).getroot().iter("testsuite"):
        failed = int(suite.get("failures", 0)) + int(suite.get("errors", 0))
        skipped = int(suite.get("skipped", 0))
        counts["failed"] += failed
        counts["skipped"] += skipped
        counts["passed"] += int(suite.get("tests", 0)) - failed - skipped


if __name__ == "__main__":
    sys.exit(main())
