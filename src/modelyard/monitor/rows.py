"""Which rows of a prediction log are judged, and the inputs they hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from modelyard.core.errors import MonitorError

if TYPE_CHECKING:
    import pyarrow as pa

    from modelyard.data.contract import Contract

_NEEDED = ("id", "time", "outcome", "latency", "breaches")
_PREFIX = "in_"


def primary(table: pa.Table) -> pa.Table:
    """The rows that clients were answered from (shadow copies are left out).

    Raises `MonitorError` when the table is no prediction log.
    """
    import pyarrow.compute as pc

    absent = [name for name in _NEEDED if name not in table.column_names]
    if absent:
        raise MonitorError(
            "the table is not a prediction log",
            value=table.column_names,
            rule=f"it has the columns {', '.join(_NEEDED)}",
            fix=f"missing: {', '.join(absent)}",
        )
    if "arm" not in table.column_names:
        return table
    return table.filter(pc.equal(table["arm"], "primary"))


def inputs(table: pa.Table, contract: Contract) -> tuple[pa.Table, tuple[str, ...]]:
    """The logged features under the contract's names, and the names of those that are not logged."""
    logged = [column.name for column in contract.features if _PREFIX + column.name in table.column_names]
    absent = tuple(column.name for column in contract.features if column.name not in logged)
    chosen = table.select([_PREFIX + name for name in logged])
    return chosen.rename_columns(logged), absent


def micros(table: pa.Table) -> npt.NDArray[np.int64]:
    """The rows' times in microseconds since 1970, UTC."""
    import pyarrow as pa

    return np.asarray(table["time"].cast(pa.timestamp("us", tz="UTC")).cast(pa.int64()), dtype=np.int64)


def span(table: pa.Table) -> tuple[float, float]:
    """Seconds since 1970 of the first and the last row; zeros without rows."""
    if not table.num_rows:
        return 0.0, 0.0
    times = micros(table)
    return float(times.min()) / 1e6, float(times.max()) / 1e6


def only(contract: Contract, names: Sequence[str]) -> Contract:
    """The contract with just these features; the others are as if ignored."""
    columns = [
        replace(column, role="ignored") if column.role == "feature" and column.name not in names else column
        for column in contract.columns
    ]
    return replace(contract, columns=tuple(columns))
