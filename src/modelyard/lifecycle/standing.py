"""Where a project's newest release stands: whether clients ever met it, and whether the loop can run."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec

from modelyard.lifecycle.project import Project
from modelyard.release.endpoint import Endpoints
from modelyard.release.registry import Registry
from modelyard.store.store import Store

_TRAINING = ("torch", "optuna", "sklearn")
"""Libraries of the `train` extra; a machine that only serves lacks them."""


@dataclass(frozen=True, slots=True)
class Standing:
    """Whether the endpoint has a policy, and whether the newest release (or the first) waits for traffic."""

    answers: bool
    waits: bool


def standing(project: Project, store: Store) -> Standing:
    """What the ledger says of the newest release and the endpoint; a change that was refused is none."""
    releases = Registry(store, ()).list(project.name)
    changes = [item for item in Endpoints(store).history(project.endpoint_name) if not item.refused]
    met = {digest for change in changes for digest in change.policy.releases}
    return Standing(answers=bool(changes), waits=not releases or releases[-1].digest not in met)


def can_run(project: Project) -> bool:
    """Whether the loop can run here: its libraries, its data and its recipe are there. Nothing is read."""
    source = project.data.source
    data = project.root / (source.partition(":")[0] if ".py:" in source else source)
    return data.is_file() and project.recipe_path.is_file() and all(map(find_spec, _TRAINING))
