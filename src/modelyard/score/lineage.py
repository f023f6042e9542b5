"""Whose evidence speaks for a release."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Lineage:
    """The subjects whose evidence counts: the release itself, its data, code, model, project and endpoint.

    >>> "endpoint:digits" in Lineage(frozenset({"endpoint:digits"}))
    True
    """

    subjects: frozenset[str]

    def __contains__(self, subject: object) -> bool:
        return subject in self.subjects
