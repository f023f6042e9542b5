"""Trains twice with the same seed and compares what was learnt (ML Test Score, infra.1)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from modelyard.core.progress import Progress, part, quiet
from modelyard.measure.measurement import Measurement, Verdict
from modelyard.train.dataset import Dataset
from modelyard.train.fit import fit
from modelyard.train.recipe import Recipe


def reproduce(
    recipe: Recipe,
    params: Mapping[str, Any],
    dataset: Dataset,
    *,
    rows: int = 1000,
    epochs: int = 2,
    tolerance: float = 0.0,
    progress: Progress = quiet,
) -> Verdict:
    """The verdict `infra.1`: two trainings with one seed give the same answers.

    To bound the cost both use at most `rows` training rows and, for torch, `epochs` epochs; the details
    say so. Passes when the largest difference of any answer on the validation part is at most
    `tolerance` (0: every bit); for torch the details also say whether all weights are equal. A third
    training with another seed shows how much hangs on the seed.
    """
    small = dataset.sample(rows, seed=recipe.seed)
    short = replace(recipe, epochs=epochs)
    runs = [
        fit(replace(short, seed=seed), params, small, progress=part(progress, index / 3, (index + 1) / 3))
        for index, seed in enumerate((recipe.seed, recipe.seed, recipe.seed + 1))
    ]
    first, second, other = (run.predict(dataset.validation).astype(np.float64) for run in runs)
    distance = float(np.max(np.abs(first - second)))
    digests = [run.weights_digest() for run in runs]
    same = "bit for bit" if distance == 0 else f"within {tolerance:g}"
    passed = distance <= tolerance
    return Verdict(
        "infra.1",
        passed,
        f"two trainings with seed {recipe.seed} answer the same, {same}"
        if passed
        else f"two trainings with seed {recipe.seed} differ by up to {distance:.3g}: "
        "look for randomness that the recipe draws outside its seed",
        (Measurement("largest_answer_difference", distance, n=len(first)),),
        tolerance,
        details={
            "rows": small.rows,
            "all_rows": dataset.rows,
            "epochs": len(runs[0].history) or None,
            "kind": runs[0].kind,
            "weights": digests[:2],
            "same_weights": None if digests[0] is None else digests[0] == digests[1],
            "difference_with_another_seed": float(np.max(np.abs(first - other))),
            "fixed": ["seed", "rows and their order", "one thread", "deterministic algorithms"],
        },
    )
