"""What the serving process does to itself before it serves."""

from __future__ import annotations

import subprocess
import sys

ALONE = """
import sys
from modelyard.serve.memory import keep_between_runs
from modelyard.serve.worker import _WithoutPandas
sys.meta_path.insert(0, _WithoutPandas())
keep_between_runs()
import pyarrow as pa
# The first list that it is given is when pyarrow looks for pandas.
assert pa.array(["a", "b"]).to_pylist() == ["a", "b"]
assert "pandas" not in sys.modules
"""


def test_it_does_without_pandas_where_that_is_installed() -> None:
    ended = subprocess.run([sys.executable, "-c", ALONE], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
