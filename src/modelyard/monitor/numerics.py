"""Whether what goes in and what comes out are numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from modelyard.monitor.suspicion import Suspicion

if TYPE_CHECKING:
    import pyarrow as pa


def numerics(table: pa.Table, features: pa.Table, action: str) -> list[Suspicion]:
    """NaN and infinities of the answers, and infinities of the inputs, column by column.

    These are facts and no samples: one is enough. (A NaN in an input is a missing value, which the contract
    and the drift of missing rates judge.)
    """
    found = [_fact("outputs", _outputs(table), table.num_rows, action)]
    inputs = {name: _infinities(features[name]) for name in features.column_names}
    broken = {name: count for name, count in inputs.items() if count}
    found.append(_fact("inputs", {f"{name}: infinity": count for name, count in broken.items()},
                       features.num_rows, action))  # fmt: skip
    return found


def _fact(side: str, broken: dict[str, int], rows: int, action: str) -> Suspicion:
    named = ", ".join(f"{name} in {count:,} rows" for name, count in list(broken.items())[:5])
    finding = f"{side} that are not finite numbers: {named}, of {rows:,}" if broken else (
        f"all {side} of {rows:,} rows are finite"
    )  # fmt: skip
    subject = next(iter(broken)).partition(":")[0] if broken else side
    return Suspicion(
        claim=f"monitor.numerics[{side}]",
        kind="numerics",
        subject=subject,
        p_value=None,
        relevant=bool(broken),
        finding=finding,
        action=action,
        effect=sum(broken.values()) / max(rows, 1),
        details={"counts": broken},
    )


def _outputs(table: pa.Table) -> dict[str, int]:
    broken: dict[str, int] = {}
    for name in ("prediction", "confidence", "probabilities"):
        if name not in table.column_names:
            continue
        values = numbers(table[name])
        nan, infinite = int(np.isnan(values).sum()), int(np.isinf(values).sum())
        if nan:
            broken[f"{name}: NaN"] = nan
        if infinite:
            broken[f"{name}: infinity"] = infinite
    return broken


def _infinities(column: pa.ChunkedArray) -> int:
    return int(np.isinf(numbers(column)).sum())


def numbers(column: pa.ChunkedArray) -> npt.NDArray[np.float64]:
    """Every floating number in a column, lists of any depth and tensors included; nulls are left out."""
    import pyarrow as pa

    pieces: list[Any] = []
    for chunk in column.chunks:
        flat = chunk.storage if isinstance(chunk.type, pa.BaseExtensionType) else chunk
        while (
            pa.types.is_list(flat.type)
            or pa.types.is_large_list(flat.type)
            or pa.types.is_fixed_size_list(flat.type)
        ):
            flat = flat.flatten()
        if not pa.types.is_floating(flat.type):
            return np.empty(0, dtype=np.float64)
        pieces.append(flat.drop_null().to_numpy(zero_copy_only=False).astype(np.float64, copy=False))
    if not pieces:
        return np.empty(0, dtype=np.float64)
    return np.concatenate(pieces)
