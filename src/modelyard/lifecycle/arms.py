"""Replayed answers as the counts that the canary's judge reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from modelyard.lifecycle.client import Answered
from modelyard.release.canary import Arm

_TOLERANCE = 1e-3
"""The largest difference of an output that still counts as the same answer (of another batch, say)."""


@dataclass(frozen=True, slots=True)
class Truth:
    """Of each replayed row: its label or value, and what the candidate answered in training.

    `tolerance` is the error beyond which a regression's answer is a miss, in the target's unit.
    """

    targets: npt.NDArray[Any]
    expected: npt.NDArray[Any]
    labels: tuple[str, ...]
    tolerance: float

    def misses(self, row: int, answer: npt.NDArray[Any]) -> bool:
        """Whether an answer `[K]` or `[1]` is wrong for its row."""
        if self.labels:
            return int(np.argmax(answer)) != int(self.targets[row])
        return abs(float(answer[0]) - float(self.targets[row])) > self.tolerance


def count_arm(answered: Sequence[Answered], release: str, truth: Truth, *, compare: bool, label: bool) -> Arm:
    """What one release did: requests, errors and, if asked, disagreements with training's answers and misses.

    A request that failed before a release was known counts against every arm: nobody may hide it.
    """
    mine = [item for item in answered if not item.ok or item.body.get("release") == release]
    good = [(item.row, main_answer(item.body["predictions"][0], truth.labels)) for item in mine if item.ok]
    differs = 0
    if compare and good:
        rows = np.array([row for row, _ in good])
        close = np.isclose(np.array([answer for _, answer in good]), truth.expected[rows],
                           rtol=_TOLERANCE, atol=_TOLERANCE)  # fmt: skip
        differs = int(np.sum(~close.all(axis=1)))
    return Arm(
        requests=len(mine),
        errors=len(mine) - len(good),
        compared=len(good) if compare else 0,
        disagreements=differs,
        labelled=len(good) if label else 0,
        misses=sum(truth.misses(row, answer) for row, answer in good) if label else 0,
    )


def offline_arm(answered: Sequence[Answered], truth: Truth, *, label: bool) -> Arm:
    """The model as it answered in training, as the arm that a first release is compared with."""
    rows = [item.row for item in answered]
    misses = sum(truth.misses(row, truth.expected[row]) for row in rows) if label else 0
    return Arm(requests=len(rows), compared=len(rows), labelled=len(rows) if label else 0, misses=misses)


def main_answer(prediction: dict[str, Any], labels: tuple[str, ...]) -> npt.NDArray[np.float64]:
    """The numbers of one plain-rows prediction: probabilities in the order of the labels, or the value."""
    if labels:
        return np.array([float(prediction["probabilities"][label]) for label in labels])
    return np.array([float(prediction["prediction"])])
