"""Tree splits written so that float32 decides as the library's own comparison does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from modelyard.core.errors import ConversionError

Split = tuple[float, bool]
"""A threshold as the library holds it (float64), and whether a missing value goes to the true branch."""


def set_splits(node: Any, splits: Sequence[Split | None]) -> None:
    """Writes the splits into a TreeEnsemble node, one a tree node in the node's order, `None` for a leaf.

    The graph compares `x <= t` in float32. For every float32 `x` that equals the comparison with a float64
    `t` exactly when `t` becomes the largest float32 not above it; rounding to the nearest, as converters
    do, can send a row the wrong way.
    """
    attributes = {item.name: item for item in node.attribute}
    values = attributes["nodes_values"].floats
    if len(values) != len(splits):
        raise ConversionError(
            "the graph's trees are not the estimator's", value=len(values), rule=f"{len(splits)} nodes"
        )
    values[:] = [0.0 if split is None else float32_below(split[0]) for split in splits]
    attributes["nodes_missing_value_tracks_true"].ints[:] = [
        0 if split is None else int(split[1]) for split in splits
    ]


def float32_below(value: float) -> float:
    """The largest float32 that is not above a float64.

    >>> float32_below(0.1) <= 0.1, float32_below(0.5)
    (True, 0.5)
    """
    with np.errstate(over="ignore"):
        rounded = np.float32(value)
    if float(rounded) > value:
        rounded = np.nextafter(rounded, np.float32(-np.inf))
    return float(rounded)
