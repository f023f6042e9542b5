"""A verified bundle as typed nouns, for the server and the monitor."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from modelyard.core.digest import Digest
from modelyard.measure.requirement import Requirement
from modelyard.release.answers import Answers
from modelyard.release.bundle import Bundle
from modelyard.release.info import ReleaseInfo
from modelyard.release.key import SigningKey

if TYPE_CHECKING:
    from modelyard.data.contract import Contract
    from modelyard.data.profile import Profile
    from modelyard.model.model import Model


@dataclass(frozen=True, slots=True)
class LoadedRelease:
    """What a release holds, read and checked."""

    digest: Digest
    info: ReleaseInfo
    model: Model
    contract: Contract
    profile: Profile
    requirements: tuple[Requirement, ...]
    answers: Answers


def load_release(bundle: Bundle) -> LoadedRelease:
    """Parses a bundle that was verified (by `read_bundle` or `Registry.fetch`); the model goes through the strict reader."""
    raise NotImplementedError


def build_bundle(
    info: ReleaseInfo,
    *,
    model: Model,
    contract: Contract,
    profile: Profile,
    requirements: Sequence[Requirement],
    evidence: Sequence[Mapping[str, Any]],
    answers: Answers,
    key: SigningKey,
) -> Bundle:
    """The signed files of a release; the same arguments give the same bytes. `evidence`: JSON objects, a line each."""
    raise NotImplementedError


BuildVersion = Callable[[int], Bundle]
