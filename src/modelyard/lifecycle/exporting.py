"""Takes a release to a place outside, proved there before it is called done."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from modelyard.core.errors import ReleaseError
from modelyard.export.targets import TARGETS
from modelyard.lifecycle.project import Project
from modelyard.lifecycle.scoring import scored_release
from modelyard.release.key import trusted_keys
from modelyard.release.load import load_release
from modelyard.release.registry import Registry
from modelyard.store.store import Store

_TOLERANCE = 1e-3


def export_release(
    project: Project, store: Store, target: str, folder: Path, version: int | None = None
) -> dict[str, Any]:
    """Writes a release (the serving one by default) for a target and runs it there on held-out rows.

    Raises `ReleaseError` when there is no release, or when the answers there differ from training's.
    """
    registry = Registry(store, trusted_keys(project.keys))
    release = registry.get(project.name, version) if version else scored_release(project, store)
    if release is None:
        raise ReleaseError("there is no release yet", fix="make one with: modelyard run")
    loaded = load_release(registry.fetch(release))
    made = TARGETS.get(target)
    artifact = made.build(loaded.model, folder)
    answers = made.run(artifact, loaded.answers.inputs)[loaded.model.output]
    worst = float(np.max(np.abs(answers - loaded.answers.outputs)))
    if not np.allclose(answers, loaded.answers.outputs, rtol=_TOLERANCE, atol=_TOLERANCE):
        raise ReleaseError(
            f"the release answers differently as {target}",
            value=worst,
            rule=f"within {_TOLERANCE:g} of the answers in training",
        )
    rows = len(answers)
    return {
        "release": f"{release.name} {release.version}",
        "digest": release.digest,
        "folder": str(folder),
        "largest_difference": worst,
        "why": f"{rows} held-out rows answered there as in training (largest difference {worst:.2g})",
    }
