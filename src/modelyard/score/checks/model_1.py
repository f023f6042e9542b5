"""model.1: model specifications are reviewed and submitted."""

from __future__ import annotations

from dataclasses import dataclass

from modelyard.measure.measurement import Verdict
from modelyard.score.checks.missing_facts import lacking
from modelyard.score.context import CheckContext, GitFacts


@dataclass(frozen=True, slots=True)
class SpecCheck:
    """Passes when project, contract and recipe are in git, nothing differs from the commit, and it is named.

    The review (a `Reviewed-by` trailer or a merge) is part of the verdict's words, and is demanded where
    `review_required` says so.
    """

    id: str = "model.1"

    def run(self, context: CheckContext) -> Verdict:
        missing = lacking(self.id, context, "git")
        if missing is not None or context.git is None:
            return missing or Verdict(self.id, False, "not measured")
        wrong = list(_wrong(context.git, context))
        review = context.git.review or "no review is recorded"
        good = f"{', '.join(context.specs)} are committed at {context.git.commit[:12]}, the tree is clean"
        why = "; ".join(wrong) if wrong else f"{good}; {review}"
        details = {
            "commit": context.git.commit,
            "changed": list(context.git.changed[:20]),
            "specs": list(context.specs),
            "review": context.git.review,
        }
        return Verdict(self.id, not wrong, why, details=details)


def _wrong(git: GitFacts, context: CheckContext) -> list[str]:
    wrong = []
    untracked = [name for name in context.specs if name not in git.tracked]
    if not git.commit:
        wrong.append("there is no commit")
    if untracked:
        wrong.append(f"not in git: {', '.join(untracked)}")
    if git.changed:
        more = f" and {len(git.changed) - 3} more" if len(git.changed) > 3 else ""
        wrong.append(f"differs from the commit: {', '.join(git.changed[:3])}{more}")
    if context.review_required and not git.review:
        wrong.append("the commit has no Reviewed-by trailer and is no merge")
    return wrong
