"""The gate before serving: requirements, the champion, and the slow slide over the last releases.

The claim is `infra.4` of the ML Test Score: model quality is validated before serving. Whatever was not
measured fails, so that forgetting a step can never open the gate.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from modelyard.measure.measurement import Measurement, Verdict
from modelyard.measure.requirement import Requirement

GATE = "infra.4"


def gate(
    required: Sequence[Requirement],
    verdicts: Sequence[Verdict],
    *,
    champion: Verdict | None,
    first: bool,
    quality: Measurement | None,
    history: Sequence[Measurement],
    slide_margin: float,
    better: Literal["higher", "lower"],
    last: int = 5,
) -> Verdict:
    """Whether a release may be served; pure.

    `required` are the project's requirements and `verdicts` what was found for them (matched by claim).
    `champion` is the non-inferiority verdict against the release that serves now; only the `first`
    release of an endpoint has none. `quality` is the candidate's main metric and `history` the same
    metric of the releases before it, oldest first: the candidate may lie at most `slide_margin` (in the
    metric's unit) behind the best of the `last` ones, so that many small accepted losses do not add up.

    >>> accuracy = Requirement("accuracy", 0.9, "at_least")
    >>> measured = Measurement("accuracy", 0.95)
    >>> found = gate([accuracy], [accuracy.judge(measured)], champion=None, first=True,
    ...              quality=measured, history=[], slide_margin=0.01, better="higher")
    >>> found.passed, found.why
    (True, '1 of 1 requirements hold; first release; no earlier release to slide from')
    """
    if not (slide_margin >= 0 and last >= 1):
        raise ValueError("slide_margin is at least 0 and last at least 1")
    by_claim = {verdict.claim: verdict for verdict in verdicts}
    asked = {requirement.claim for requirement in required}
    problems = [f"{claim} was not measured" for claim in sorted(asked - by_claim.keys())]
    # Verdicts beyond the requirements count too: nothing that failed is left aside.
    problems += [f"{verdict.claim}: {verdict.why}" for verdict in verdicts if not _holds(verdict)]
    if not asked:
        problems.append("the project requires nothing, so nothing was validated")
    held = sum(claim in by_claim and _holds(by_claim[claim]) for claim in asked)
    notes = [f"{held} of {len(asked)} requirements hold"]
    problem, note = _against_champion(champion, first)
    problems += problem
    notes += note
    problem, note = _slide(quality, history[-last:], slide_margin, better)
    problems += problem
    notes += note
    return Verdict(
        claim=GATE,
        passed=not problems,
        why="; ".join(problems or notes),
        measurements=tuple(item for verdict in verdicts for item in verdict.measurements)
        + (champion.measurements if champion else ()),
        bound=slide_margin,
        details={
            "problems": problems,
            "requirements": {claim: claim in by_claim and _holds(by_claim[claim]) for claim in sorted(asked)},
            "champion": None if champion is None else champion.to_json(),
            "first": first,
            "history": [item.value for item in history[-last:]],
            "slide_margin": slide_margin,
        },
    )


def _holds(verdict: Verdict) -> bool:
    return verdict.passed and not any(math.isnan(item.value) for item in verdict.measurements)


def _against_champion(champion: Verdict | None, first: bool) -> tuple[list[str], list[str]]:
    if champion is None:
        return ([], ["first release"]) if first else (["the comparison with the champion is missing"], [])
    if not _holds(champion):
        return [f"not shown to be as good as the champion: {champion.why}"], []
    return [], ["as good as the champion"]


def _slide(
    quality: Measurement | None,
    history: Sequence[Measurement],
    margin: float,
    better: Literal["higher", "lower"],
) -> tuple[list[str], list[str]]:
    if quality is None or not math.isfinite(quality.value):
        return ["the candidate's quality was not measured"], []
    if any(item.metric != quality.metric for item in history):
        return [f"earlier releases were measured by another metric than {quality.metric}"], []
    values = [item.value for item in history if math.isfinite(item.value)]
    if not values:
        return [], ["no earlier release to slide from"]
    best = max(values) if better == "higher" else min(values)
    lost = best - quality.value if better == "higher" else quality.value - best
    said = f"{quality.metric} {quality.value:.6g} against {best:.6g}, the best of the last {len(values)}"
    # The tolerance is for decimal margins that binary numbers cannot hold.
    if lost > margin + 1e-12 * max(1.0, abs(best)):
        return [f"a slow slide: {said}, loses more than {margin:g}"], []
    return [], [f"no slow slide ({said})"]
