"""Replayed answers as the counts that the canary's judge reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from modelyard.lifecycle.client import Answered
from modelyard.release.canary import Arm

_TOLERANCE = 1e-3
"""The largest difference of an output that still counts as the same answer (of another batch, say)."""


def count_arm(
    answered: Sequence[Answered],
    release: str,
    truth: npt.NDArray[Any],
    expected: npt.NDArray[Any] | None,
    labels: tuple[str, ...],
) -> Arm:
    """What one release did: requests, errors, disagreements with training's answers, wrong labels.

    A request that failed before a release is known counts against every arm: nobody may hide it.
    """
    mine = [item for item in answered if not item.ok or item.body.get("release") == release]
    good = [item for item in mine if item.ok]
    differs = 0
    if expected is not None:
        differs = sum(not _agrees(item, expected[item.row], labels) for item in good)
    misses = 0
    if labels:
        misses = sum(item.body["predictions"][0]["label"] != labels[int(truth[item.row])] for item in good)
    return Arm(
        requests=len(mine),
        errors=len(mine) - len(good),
        compared=len(good) if expected is not None else 0,
        disagreements=differs,
        labelled=len(good) if labels else 0,
        misses=misses,
    )


def offline_arm(truth: npt.NDArray[Any], expected: npt.NDArray[Any]) -> Arm:
    """The model as it answered in training, as the arm that a first release is compared with."""
    rows = len(truth)
    classes = expected.ndim == 2 and expected.shape[1] > 1
    misses = int(np.sum(expected.argmax(axis=1) != truth)) if classes else 0
    return Arm(requests=rows, compared=rows, labelled=rows if classes else 0, misses=misses)


def _agrees(item: Answered, expected: npt.NDArray[Any], labels: tuple[str, ...]) -> bool:
    prediction = item.body["predictions"][0]
    if labels:
        got = [float(prediction["probabilities"][label]) for label in labels]
        return bool(np.allclose(got, expected, atol=_TOLERANCE))
    return bool(np.allclose(float(prediction["prediction"]), expected, rtol=_TOLERANCE, atol=_TOLERANCE))
