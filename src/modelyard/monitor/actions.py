"""The commands that an alarm tells people to run."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Actions:
    """Next steps for an endpoint.

    >>> Actions("digits").rollback
    'modelyard endpoint rollback digits'
    """

    endpoint: str = ""

    @property
    def rollback(self) -> str:
        """For what the release itself does wrong."""
        return f"modelyard endpoint rollback {self.endpoint}".rstrip()

    @property
    def retrain(self) -> str:
        """For what a release learnt from newer data would do better."""
        return "modelyard run"

    @property
    def inspect(self) -> str:
        """For what people must look at first: the page with the plots."""
        return "modelyard report"
