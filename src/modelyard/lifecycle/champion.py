"""The release that an endpoint serves now: what a candidate is compared with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from modelyard.core.digest import Digest
from modelyard.core.errors import DataError, ModelError, ReleaseError
from modelyard.data.tensors import features
from modelyard.lifecycle.loop import Context
from modelyard.model.answer import answer
from modelyard.release.endpoint import Endpoints
from modelyard.release.key import trusted_keys
from modelyard.release.load import LoadedRelease, load_release
from modelyard.release.registry import Registry


@dataclass(frozen=True, slots=True)
class Champion:
    """The serving release, verified and loaded."""

    digest: Digest
    release: LoadedRelease

    def answer(self, table: Any) -> npt.NDArray[Any] | None:
        """Its answers on a table's rows; nothing when the table lacks what it needs."""
        try:
            tensors = features(table, self.release.contract)
            return answer(self.release.model, tensors, self.release.info.runtime)
        except (DataError, ModelError):
            return None


def champion_digest(context: Context) -> Digest | None:
    """Who answers the endpoint's clients now; nothing before the first promotion."""
    endpoints = Endpoints(context.store)
    if context.project.endpoint_name not in endpoints.names():
        return None
    return endpoints.show(context.project.endpoint_name).policy.champion


def champion_of(context: Context) -> Champion | None:
    """The champion, verified by the trusted keys at this very load; nothing when there is none.

    A champion that no longer verifies is said in a `ReleaseError`: nothing may be compared with it.
    """
    digest = champion_digest(context)
    if digest is None:
        return None
    registry = Registry(context.store, trusted_keys(context.project.keys))
    try:
        return Champion(digest, load_release(registry.fetch(registry.by_digest(digest))))
    except ReleaseError as error:
        error.fix = error.fix or "roll the endpoint back with: modelyard endpoint rollback"
        raise
