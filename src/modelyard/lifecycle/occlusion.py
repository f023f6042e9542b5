"""What an answer hangs on: each feature in turn replaced by what is usual, and how far the answer moves.

Source: Zeiler and Fergus, "Visualizing and Understanding Convolutional Networks", ECCV 2014 (occlusion);
for a table's columns it is the same with the training mean or the commonest value.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from modelyard.core.spec import Tensors
from modelyard.model.answer import opened
from modelyard.model.model import Model
from modelyard.model.predict import predict

_BLOCKS = 4
_KEPT = 10


@dataclass(frozen=True, slots=True)
class Effect:
    """What was replaced, by what, and what the predicted class's probability, or the value, loses."""

    what: str
    instead: str
    change: float


def occlude(model: Model, tensors: Tensors, training: Tensors) -> list[Effect]:
    """The strongest effects on the answer for one row (`tensors`, batch 1), strongest first."""
    variants: list[tuple[str, str, Tensors]] = []
    for name, value in tensors.items():
        variants += _variants(name, value, training[name], tensors)
    with opened(model) as session:
        base = predict(session, tensors)[0]
        index = int(np.argmax(base)) if model.labels else 0
        effects = [
            Effect(what, instead, float(base[index] - predict(session, changed)[0][index]))
            for what, instead, changed in variants
        ]
    return sorted(effects, key=lambda effect: -abs(effect.change))[:_KEPT]


def _variants(
    name: str, value: npt.NDArray[Any], seen: npt.NDArray[Any], tensors: Tensors
) -> list[tuple[str, str, Tensors]]:
    if value.dtype == object:
        values, counts = np.unique(seen.astype(str), return_counts=True)
        commonest = str(values[np.argmax(counts)])
        return [(name, repr(commonest), {**tensors, name: np.full_like(value, commonest)})]
    if value.ndim < 4:
        usual = np.nanmean(seen, axis=0, dtype=np.float64).astype(value.dtype)
        shown = f"{float(usual.reshape(-1)[0]):.4g}" if usual.size == 1 else "the training mean"
        return [(name, shown, {**tensors, name: usual[None]})]
    return _blocks(name, value, seen, tensors)


def _blocks(
    name: str, value: npt.NDArray[Any], seen: npt.NDArray[Any], tensors: Tensors
) -> list[tuple[str, str, Tensors]]:
    """An image in blocks, each replaced by the training mean of its pixels."""
    usual = np.nanmean(seen, axis=0, dtype=np.float64).astype(value.dtype)
    found = []
    for down in np.array_split(np.arange(value.shape[-2]), _BLOCKS):
        for right in np.array_split(np.arange(value.shape[-1]), _BLOCKS):
            if not (down.size and right.size):
                continue
            changed = value.copy()
            rows, columns = slice(down[0], down[-1] + 1), slice(right[0], right[-1] + 1)
            changed[..., rows, columns] = usual[..., rows, columns]
            what = f"{name} rows {down[0]}-{down[-1]}, columns {right[0]}-{right[-1]}"
            found.append((what, "the training mean", {**tensors, name: changed}))
    return found
