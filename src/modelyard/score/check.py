"""The extension point: what turns facts about a project into evidence for one test of the score."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from modelyard.measure.measurement import Verdict
from modelyard.score.context import CheckContext


@runtime_checkable
class Check(Protocol):
    """Evidence for one test. Implementations are pure: they read the context, and touch nothing else.

    `run` is called once a release with whatever facts the caller has. The verdict's claim is the test's
    claim (`ScoreTest.claim`). A fact that is missing gives a failed verdict that names it, never an
    exception; equal contexts give equal verdicts.
    """

    @property
    def id(self) -> str:
        """The test of the score, such as `data.2`."""
        ...

    def run(self, context: CheckContext) -> Verdict:
        """The evidence, passed or failed."""
        ...
