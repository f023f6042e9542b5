"""model.3: all hyper-parameters have been tuned."""

from __future__ import annotations

from dataclasses import dataclass, replace

from modelyard.measure.measurement import Verdict
from modelyard.score.checks.missing_facts import lacking
from modelyard.score.context import CheckContext


@dataclass(frozen=True, slots=True)
class TuningCheck:
    """Training's own verdict on its study: each hyper-parameter covered, importance, convergence."""

    id: str = "model.3"

    def run(self, context: CheckContext) -> Verdict:
        if context.study is None:
            return lacking(self.id, context, "study") or Verdict(self.id, False, "not measured")
        return replace(context.study, claim=self.id)
