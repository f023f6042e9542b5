"""The parts of held-out data that nobody declared, and that may hide a weak spot."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from modelyard.core.spec import Tensors

Mask = npt.NDArray[np.bool_]

MOST_CATEGORIES = 12
MOST_FEATURES = 24


def automatic_slices(tensors: Tensors, targets: npt.NDArray[Any], labels: tuple[str, ...]) -> dict[str, Mask]:
    """Each label, each frequent category and each third of a number's range, as masks `[N]`.

    At most `MOST_FEATURES` scalar features and `MOST_CATEGORIES` values each are looked at.

    >>> sorted(automatic_slices({"x": np.arange(9.0).reshape(-1, 1)}, np.zeros(9, int), ("a", "b")))
    ['label = a', 'label = b', 'x in its highest third', 'x in its lowest third', 'x in its middle third']
    """
    slices = {f"label = {name}": targets == index for index, name in enumerate(labels)}
    scalars = [
        (name, values) for name, values in tensors.items() if values.ndim == 2 and values.shape[1] == 1
    ]
    for name, values in scalars[:MOST_FEATURES]:
        column = values[:, 0]
        slices.update(_categories(name, column) if column.dtype.kind in "OUS" else _thirds(name, column))
    return slices


def _categories(name: str, column: npt.NDArray[Any]) -> Iterator[tuple[str, Mask]]:
    text = column.astype(str)
    values, counts = np.unique(text, return_counts=True)
    for value in values[np.argsort(-counts, kind="stable")][:MOST_CATEGORIES]:
        yield f"{name} = {value or '(missing)'}", text == value


def _thirds(name: str, column: npt.NDArray[Any]) -> Iterator[tuple[str, Mask]]:
    numbers = column.astype(np.float64)
    known = np.isfinite(numbers)
    if not known.any():
        return
    values = np.unique(numbers[known])
    if len(values) <= 3:
        for value in values:
            yield f"{name} = {value:g}", known & (numbers == value)
    else:
        low, high = np.quantile(numbers[known], [1 / 3, 2 / 3])
        yield f"{name} in its lowest third", known & (numbers <= low)
        yield f"{name} in its middle third", known & (numbers > low) & (numbers <= high)
        yield f"{name} in its highest third", known & (numbers > high)
    if not known.all():
        yield f"{name} is missing", ~known
