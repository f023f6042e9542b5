"""Which subjects' evidence speaks for a release."""

from __future__ import annotations

from collections.abc import Mapping

from modelyard.core.digest import Digest


def subjects_of(
    lineage: Mapping[str, Digest], *, release: Digest | None = None, endpoint: str | None = None
) -> frozenset[str]:
    """The digests that a release was made from, itself, and its endpoint.

    >>> sorted(subjects_of({"model": "m"}, release="r", endpoint="e"))
    ['endpoint:e', 'm', 'r']
    """
    known = set(lineage.values())
    if release is not None:
        known.add(release)
    if endpoint is not None:
        known.add(f"endpoint:{endpoint}")
    return frozenset(known)
