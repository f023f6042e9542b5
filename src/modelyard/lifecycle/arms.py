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


def count_arm(answered: Sequence[Answered], release: str, truth: Truth, *, once: int, compare: bool) -> Arm:
    """What one release did: requests, errors, misses and, if asked, disagreements with training's answers.

    A request that failed before a release was known counts against every arm: nobody may hide it. Only
    the first `once` requests count for quality: the rows after them are the same again.
    """
    mine = [item for item in answered if not item.ok or item.body.get("release") == release]
    good = [(item.row, main_answer(item.body["predictions"][0], truth.labels)) for item in mine if item.ok]
    fresh = [
        (item.row, main_answer(item.body["predictions"][0], truth.labels))
        for item in answered[:once]
        if item.ok and item.body.get("release") == release
    ]
    differs = sum(
        not np.allclose(answer, truth.expected[row], rtol=_TOLERANCE, atol=_TOLERANCE) for row, answer in good
    )
    return Arm(
        requests=len(mine),
        errors=len(mine) - len(good),
        compared=len(good) if compare else 0,
        disagreements=differs if compare else 0,
        labelled=len(fresh),
        misses=sum(truth.misses(row, answer) for row, answer in fresh),
    )


def offline_arm(truth: Truth, rows: Sequence[int], *, once: int) -> Arm:
    """The model as it answered in training, as the arm that a first release is compared with."""
    misses = sum(truth.misses(row, truth.expected[row]) for row in rows[:once])
    return Arm(requests=len(rows), compared=len(rows), labelled=len(rows[:once]), misses=misses)


def main_answer(prediction: dict[str, Any], labels: tuple[str, ...]) -> npt.NDArray[np.float64]:
    """The numbers of one plain-rows prediction: probabilities in the order of the labels, or the value."""
    if labels:
        return np.array([float(prediction["probabilities"][label]) for label in labels])
    return np.array([float(prediction["prediction"])])
