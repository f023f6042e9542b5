"""What each feature costs in serving: reading it from a request, checking it, and how often it is missing."""

from __future__ import annotations

import json
import statistics
import time
from dataclasses import replace

from modelyard.data.contract import Contract
from modelyard.data.live import LiveContract
from modelyard.data.rows import from_rows
from modelyard.lifecycle.parts import Part
from modelyard.lifecycle.rows import plain_rows
from modelyard.score.context import FeatureCost

_ROWS = 64


def feature_costs(contract: Contract, part: Part) -> dict[str, FeatureCost]:
    """Of each feature alone, on real rows: median seconds and bytes a row, and the missing rate."""
    rows = plain_rows(part.tensors, contract, range(min(_ROWS, len(part.targets))))
    found = {}
    for column in contract.features:
        alone = _alone(contract, column.name)
        check = LiveContract(alone)
        taken, sizes = [], []
        for row in rows:
            body = json.dumps([{column.name: row[column.name]}])
            began = time.perf_counter()
            check.breaches(from_rows(json.loads(body), alone))
            taken.append(time.perf_counter() - began)
            sizes.append(len(body))
        missing = part.table.column(column.name).null_count / max(part.table.num_rows, 1)
        found[column.name] = FeatureCost(statistics.median(taken), statistics.median(sizes), missing)
    return found


def _alone(contract: Contract, name: str) -> Contract:
    """The contract with one feature; the others are as if ignored."""
    columns = tuple(
        column if column.role != "feature" or column.name == name else replace(column, role="ignored")
        for column in contract.columns
    )
    return replace(contract, columns=columns)
