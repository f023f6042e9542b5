"""The canary's judge: promote, roll back or go on, from counts alone and valid at every look.

Every comparison is a test martingale (`modelyard.measure.sequential`), so looking after each request costs
nothing: the chance that a candidate which is within its margins is ever rolled back for harm is at most
`alpha`, and so is the chance that one which is worse than a margin is ever promoted. Nothing is dropped
and nothing is averaged: a request that failed, or an hour without a single error, counts as what it is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, TypeAlias

from modelyard.core.digest import Digest
from modelyard.measure.measurement import Measurement, Verdict
from modelyard.measure.sequential import BernoulliComparison, ProportionSequence

CANARY = "release.canary"
"""The claim of the verdict, about the candidate, that a promotion asks for."""

Action: TypeAlias = Literal["continue", "promote", "rollback"]

CHECKS = ("errors", "latency", "quality", "agreement")
_HARMS = len(CHECKS) + 1
_METHOD = "confidence-sequence-beta-mixture"


@dataclass(frozen=True, slots=True)
class Arm:
    """What one release did in the trial, as counts since it began.

    Of the `requests`, `errors` failed by the service's fault. Of those `timed`, `slow` took longer than
    the objective. Of those `labelled` by feedback, `misses` were wrong (another class, a value off by
    more than is tolerated). Of those `compared` with answers of training time, `disagreements` differed.
    """

    requests: int = 0
    errors: int = 0
    timed: int = 0
    slow: int = 0
    labelled: int = 0
    misses: int = 0
    compared: int = 0
    disagreements: int = 0

    def __add__(self, other: Arm) -> Arm:
        return Arm(*(getattr(self, item.name) + getattr(other, item.name) for item in fields(Arm)))

    def counts(self, check: str) -> tuple[int, int]:
        """How many were bad, and of how many, for one of `CHECKS`."""
        bad, of = {
            "errors": (self.errors, self.requests),
            "latency": (self.slow, self.timed),
            "quality": (self.misses, self.labelled),
            "agreement": (self.disagreements, self.compared),
        }[check]
        return bad, of


@dataclass(frozen=True, slots=True)
class Trial:
    """Which trial is judged: the endpoint, its two releases, and for how many seconds it has run."""

    endpoint: str
    champion: Digest
    candidate: Digest
    elapsed: float


@dataclass(frozen=True, slots=True)
class CanaryOptions:
    """How much worse the candidate may be, and how surely that must be shown.

    Each margin is a difference of rates, candidate minus champion (0.01 is one request in a hundred);
    `agreement_margin` and `error_limit` bound the candidate's own rate. Promotion needs every check in
    `needed` shown within its margin on at least `minimum` observations in each arm. A trial that is not
    decided within `timeout` seconds is rolled back.
    """

    error_margin: float = 0.02
    latency_margin: float = 0.05
    quality_margin: float = 0.05
    agreement_margin: float = 0.01
    error_limit: float = 0.1
    needed: tuple[str, ...] = ("errors", "latency", "quality")
    minimum: int = 100
    alpha: float = 0.05
    timeout: float = 86_400.0

    def __post_init__(self) -> None:
        limits = (*(self.margin(check) for check in CHECKS), self.error_limit)
        if not all(0 < limit <= 1 for limit in limits):
            raise ValueError(f"margins lie above 0 and are at most 1, got {limits}")
        if not (0 < self.alpha < 1 and self.minimum >= 1 and self.timeout > 0):
            raise ValueError("alpha lies between 0 and 1, minimum is at least 1 and timeout above 0")
        if not set(self.needed) <= set(CHECKS) or "errors" not in self.needed:
            raise ValueError(f"needed names some of {', '.join(CHECKS)}, errors always, got {self.needed}")

    def margin(self, check: str) -> float:
        """The margin of one of `CHECKS`."""
        return {
            "errors": self.error_margin,
            "latency": self.latency_margin,
            "quality": self.quality_margin,
            "agreement": self.agreement_margin,
        }[check]


@dataclass(frozen=True, slots=True)
class Decision:
    """What follows, and the verdict to append to the ledger under the candidate's digest.

    The verdict has passed only with `promote`.
    """

    action: Action
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Check:
    """One check's standing: shown within the margin, shown beyond it (harm), or neither yet."""

    name: str
    shown: bool
    harm: bool
    note: str


def judge_canary(trial: Trial, champion: Arm, candidate: Arm, options: CanaryOptions) -> Decision:
    """Judges the counts so far; pure, and right at every look.

    Rolls back as soon as harm beyond a margin is shown or the time is over, promotes when every needed
    check is shown within its margin, goes on otherwise. Counts that cannot be (more errors than
    requests, NaN) are never promoted on.

    >>> trial = Trial("digits", "sha256:" + "a" * 64, "sha256:" + "b" * 64, elapsed=60)
    >>> arm = Arm(requests=800, timed=800, labelled=800, misses=16)
    >>> judge_canary(trial, arm, arm, CanaryOptions()).action
    'promote'
    >>> bad = Arm(requests=80, errors=20, timed=80, labelled=80)
    >>> judge_canary(trial, arm, bad, CanaryOptions()).action
    'rollback'
    """
    checks = weigh(champion, candidate, options)
    action = decide(checks, trial.elapsed, options)
    measured = tuple(
        _measure(check, champion, candidate, options)
        for check in CHECKS
        if _sound(champion, check) and _sound(candidate, check) and candidate.counts(check)[1]
    )
    details: dict[str, Any] = {
        "action": action,
        "endpoint": trial.endpoint,
        "champion": trial.champion,
        "candidate": trial.candidate,
        "elapsed": trial.elapsed,
        "needed": list(options.needed),
        "checks": {
            check.name: {
                "shown": check.shown,
                "harm": check.harm,
                "note": check.note,
                "margin": options.margin(check.name),
                "champion": list(champion.counts(check.name)),
                "candidate": list(candidate.counts(check.name)),
            }
            for check in checks
        },
    }
    return Decision(
        action,
        Verdict(CANARY, action == "promote", _why(action, checks, trial, options), measured, details=details),
    )


def weigh(champion: Arm, candidate: Arm, options: CanaryOptions) -> tuple[Check, ...]:
    """Where each of `CHECKS` stands."""
    return tuple(_weigh(check, champion, candidate, options) for check in CHECKS)


def decide(checks: Sequence[Check], elapsed: float, options: CanaryOptions) -> Action:
    """What follows from the checks and the time; anything unclear never promotes."""
    if any(check.harm for check in checks):
        return "rollback"
    shown = {check.name for check in checks if check.shown}
    if shown >= set(options.needed):
        return "promote"
    # Written so that a time which is NaN is over.
    return "continue" if elapsed < options.timeout else "rollback"


def _weigh(check: str, champion: Arm, candidate: Arm, options: CanaryOptions) -> Check:
    if not (_sound(champion, check) and _sound(candidate, check)):
        return Check(check, False, False, "the counts cannot be: the analysis has failed")
    (bad, of), (_, against) = candidate.counts(check), champion.counts(check)
    if not of:
        return Check(check, False, False, "nothing was measured")
    limit = -math.log(options.alpha)
    # One false alarm in all: each of the tests for harm gets its part of alpha.
    harm_limit = limit + math.log(_HARMS)
    margin = options.margin(check)
    alone = ProportionSequence(bad, of)
    if check == "agreement":
        seen, evidence, arms = alone.mean, alone.evidence(margin), of
    else:
        both = BernoulliComparison(ProportionSequence(*champion.counts(check)), alone)
        seen = both.candidate.mean - both.reference.mean if against else math.nan
        evidence, arms = (both.evidence(margin) if against else 0.0), min(of, against)
    shown = seen < margin and evidence >= limit
    harm = seen > margin and evidence >= harm_limit
    if check == "errors":
        over = alone.evidence(options.error_limit)
        shown = shown and alone.mean < options.error_limit and over >= limit
        harm = harm or (alone.mean > options.error_limit and over >= harm_limit)
    if harm:
        return Check(check, False, True, f"worse than allowed ({bad} of {of})")
    if arms < options.minimum:
        return Check(check, False, False, f"only {arms} observations of {options.minimum}")
    return Check(check, shown, False, "within the margin" if shown else "not shown to be within the margin")


def _sound(arm: Arm, check: str) -> bool:
    bad, of = arm.counts(check)
    return math.isfinite(of) and 0 <= bad <= of


def _measure(check: str, champion: Arm, candidate: Arm, options: CanaryOptions) -> Measurement:
    alone = ProportionSequence(*candidate.counts(check))
    if check == "agreement":
        low, high = alone.interval(options.alpha)
        return Measurement(
            "canary_disagreement", alone.mean, low, high, "", alone.n, 1 - options.alpha, _METHOD
        )
    both = BernoulliComparison(ProportionSequence(*champion.counts(check)), alone)
    low, high = both.interval(options.alpha)
    value, n = alone.mean - both.reference.mean, min(alone.n, both.reference.n)
    return Measurement(f"canary_{check}_difference", value, low, high, "", n, 1 - options.alpha, _METHOD)


def _why(action: Action, checks: Sequence[Check], trial: Trial, options: CanaryOptions) -> str:
    harmed = [f"{check.name}: {check.note}" for check in checks if check.harm]
    if harmed:
        return "harm is shown, " + "; ".join(harmed)
    if action == "promote":
        return "no worse than the champion within every margin: " + ", ".join(options.needed)
    missing = "; ".join(
        f"{check.name}: {check.note}" for check in checks if check.name in options.needed and not check.shown
    )
    if action == "rollback":
        return f"undecided after {trial.elapsed:.0f} s of {options.timeout:.0f} s, {missing}"
    return f"not decided yet, {missing}"
