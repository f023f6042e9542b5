"""The ML Test Score of what the endpoint serves, or of the newest release where nothing is served yet."""

from __future__ import annotations

from modelyard.core.clock import SYSTEM_CLOCK, Clock
from modelyard.core.errors import ReleaseError
from modelyard.lifecycle.lineage import subjects_of
from modelyard.lifecycle.project import Project
from modelyard.release.endpoint import Endpoints
from modelyard.release.registry import Registry, Release
from modelyard.score.lineage import Lineage
from modelyard.score.score import Score, score
from modelyard.store.store import Store


def scored_release(project: Project, store: Store) -> Release | None:
    """The champion; before there is one, the newest release; nothing before that."""
    registry, endpoints = Registry(store, ()), Endpoints(store)
    try:
        if project.endpoint_name in endpoints.names():
            return registry.by_digest(endpoints.show(project.endpoint_name).champion)
        return registry.get(project.name)
    except ReleaseError:
        return None


def score_of(project: Project, store: Store, *, clock: Clock = SYSTEM_CLOCK) -> Score:
    """The score from the ledger alone; with no release yet it is what the ledger supports: nothing."""
    release = scored_release(project, store)
    subjects = frozenset({f"project:{project.name}"})
    if release is not None:
        subjects |= subjects_of(release.lineage, release=release.digest, endpoint=project.endpoint_name)
    return score(store.ledger.entries(), Lineage(subjects), clock.now(), expires=project.score.expires)
