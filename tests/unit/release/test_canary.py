from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from modelyard.core.digest import digest_bytes
from modelyard.measure.measurement import Verdict
from modelyard.release.canary import (
    CANARY,
    CHECKS,
    Arm,
    CanaryOptions,
    Decision,
    Trial,
    decide,
    judge_canary,
    weigh,
)

TRIAL = Trial("digits", digest_bytes(b"a"), digest_bytes(b"b"), elapsed=60.0)
OPTIONS = CanaryOptions()
RUNS = 200
GOOD = Arm(requests=1000, errors=2, timed=1000, slow=20, labelled=1000, misses=20)


def judged(candidate: Arm, champion: Arm = GOOD, options: CanaryOptions = OPTIONS, **trial: Any) -> Decision:
    return judge_canary(replace(TRIAL, **trial), champion, candidate, options)


def test_an_equal_candidate_is_promoted() -> None:
    decision = judged(GOOD)
    assert decision.action == "promote"
    assert decision.verdict.claim == CANARY
    assert decision.verdict.passed
    details = decision.verdict.details
    assert (details["action"], details["endpoint"]) == ("promote", "digits")
    assert (details["champion"], details["candidate"]) == (TRIAL.champion, TRIAL.candidate)
    assert {item.metric for item in decision.verdict.measurements} == {
        "canary_errors_difference",
        "canary_latency_difference",
        "canary_quality_difference",
    }
    for item in decision.verdict.measurements:
        assert item.low is not None and item.high is not None
        assert item.low <= item.value <= item.high
    assert Verdict.from_json(decision.verdict.to_json()) == decision.verdict


@pytest.mark.parametrize(
    "harm",
    [{"errors": 120}, {"slow": 200}, {"misses": 200}, {"compared": 1000, "disagreements": 100}],
    ids=CHECKS,
)
def test_harm_of_any_kind_rolls_back(harm: dict[str, int]) -> None:
    decision = judged(replace(GOOD, **harm))
    assert decision.action == "rollback"
    assert not decision.verdict.passed
    assert "harm is shown" in decision.verdict.why


def test_a_better_candidate_is_promoted() -> None:
    assert judged(GOOD, replace(GOOD, errors=60, slow=150, misses=150)).action == "promote"


def test_seven_of_ten_samples_a_hundred_times_worse_do_not_pass() -> None:
    """kayenta#780: ten samples, seven of them 100 times slower, passed a rank test."""
    ten = Arm(requests=10, timed=10, slow=7, labelled=10)
    assert judged(ten, Arm(requests=10, timed=10, labelled=10)).action != "promote"
    assert judged(ten).action == "rollback"
    for scale in range(1, 200, 7):
        arm = Arm(requests=10 * scale, timed=10 * scale, slow=7 * scale, labelled=10 * scale)
        clean = replace(arm, slow=0)
        assert judged(arm, clean).action != "promote"
    assert judged(arm, clean).action == "rollback"


def test_sparse_errors_do_not_pass() -> None:
    """kayenta#426: a champion without any error leaves nothing to compare with, and the errors passed."""
    clean = replace(GOOD, errors=0)
    for requests in (20, 100, 1000, 10_000):
        arm = Arm(requests=requests, errors=requests // 20, timed=requests, labelled=requests)
        assert judged(arm, clean).action != "promote"
    assert judged(arm, clean).action == "rollback"


def test_too_few_observations_never_promote() -> None:
    few = Arm(requests=99, timed=99, labelled=99)
    wide = CanaryOptions(error_margin=1, latency_margin=1, quality_margin=1, error_limit=1)
    assert judged(few, few, wide).action == "continue"
    assert judged(few, GOOD, wide).action == "continue"
    assert judged(GOOD, few, wide).action == "continue"
    assert "only 99 observations of 100" in judged(few, few, wide).verdict.why


@pytest.mark.parametrize("absent", ["timed", "labelled", "requests"])
def test_what_was_not_measured_never_promotes(absent: str) -> None:
    bad = {"timed": "slow", "labelled": "misses", "requests": "errors"}[absent]
    for champion, candidate in (
        (GOOD, replace(GOOD, **{absent: 0, bad: 0})),
        (replace(GOOD, **{absent: 0, bad: 0}), GOOD),
    ):
        decision = judged(candidate, champion)
        assert decision.action == "continue"
        assert not decision.verdict.passed


@pytest.mark.parametrize(
    "broken",
    [
        {"errors": 2000},
        {"errors": -1},
        {"requests": math.nan},
        {"requests": math.inf},
        {"errors": math.nan},
        {"slow": 1001},
        {"misses": math.nan},
    ],
)
def test_an_analysis_that_fails_never_promotes(broken: dict[str, Any]) -> None:
    """argo-rollouts#1411: the analysis failed and the roll-out finished all the same."""
    for champion, candidate in ((GOOD, replace(GOOD, **broken)), (replace(GOOD, **broken), GOOD)):
        decision = judged(candidate, champion)
        assert decision.action == "continue"
        assert not decision.verdict.passed
        assert judged(candidate, champion, elapsed=OPTIONS.timeout).action == "rollback"


def test_eighteen_failures_roll_back() -> None:
    """flagger#1801: 18 failures and no roll-back."""
    arm = Arm(requests=18, errors=18)
    assert judged(arm).action == "rollback"


def test_time_runs_out() -> None:
    undecided = Arm(requests=50, timed=50, labelled=50)
    assert judged(undecided).action == "continue"
    for elapsed in (OPTIONS.timeout, math.inf, math.nan):
        decision = judged(undecided, elapsed=elapsed)
        assert decision.action == "rollback"
        assert not decision.verdict.passed
    assert judged(GOOD, elapsed=OPTIONS.timeout).action == "promote"


def test_a_champion_that_fails_is_no_excuse() -> None:
    """As bad as a broken champion is not good enough."""
    broken = replace(GOOD, errors=500)
    assert judged(broken, broken).action == "rollback"


def test_a_difference_at_the_margin_is_never_decided_by_looking_longer() -> None:
    arm = replace(GOOD, requests=100_000, errors=2000, labelled=100_000, timed=100_000)
    champion = replace(arm, errors=0)
    assert judged(arm, champion).action == "continue"


def test_only_what_is_needed_holds_a_promotion_up() -> None:
    unlabelled = replace(GOOD, labelled=0, misses=0)
    options = replace(OPTIONS, needed=("errors", "latency"))
    assert judged(unlabelled, unlabelled, options).action == "promote"
    assert judged(replace(GOOD, misses=300), GOOD, options).action == "rollback"


def test_arms_add_up() -> None:
    assert Arm(1, 2, 3, 4, 5, 6, 7, 8) + Arm(1, 1, 1, 1, 1, 1, 1, 1) == Arm(2, 3, 4, 5, 6, 7, 8, 9)


@pytest.mark.parametrize(
    "wrong",
    [
        {"error_margin": 0.0},
        {"quality_margin": math.nan},
        {"latency_margin": 1.5},
        {"alpha": 0.0},
        {"minimum": 0},
        {"timeout": 0.0},
        {"needed": ("erors",)},
        {"needed": ("quality",)},
    ],
)
def test_wrong_options(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"margins|alpha|needed"):
        CanaryOptions(**wrong)


def month(rng: np.random.Generator, rates: dict[str, tuple[float, float]]) -> str:
    """Looks once a day for 30 days at 200 requests a day and arm, and stops at the first decision."""
    champion, candidate = Arm(), Arm()
    for _ in range(30):
        drawn = {name: rng.binomial(200, rate) for name, rate in rates.items()}
        arms = [
            Arm(
                200,
                *(int(drawn["errors"][side]), 200, int(drawn["slow"][side]), 200, int(drawn["misses"][side])),
            )
            for side in (0, 1)
        ]
        champion, candidate = champion + arms[0], candidate + arms[1]
        action = decide(weigh(champion, candidate, OPTIONS), 1.0, OPTIONS)
        if action != "continue":
            return action
    return "continue"


def simulate(seed: int, runs: int = RUNS, **candidate: float) -> list[str]:
    rng = np.random.default_rng(seed)
    base = {"errors": 0.01, "slow": 0.02, "misses": 0.05}
    rates = {name: (rate, candidate.get(name, rate)) for name, rate in base.items()}
    return [month(rng, rates) for _ in range(runs)]


def test_looking_daily_for_a_month_keeps_false_alarms_below_alpha() -> None:
    """An ordinary test would raise a false alarm in 29 % of such months. Here: harm at the very margin."""
    assert simulate(1).count("rollback") <= 0.05 * RUNS
    assert simulate(2).count("promote") >= 0.95 * RUNS
    at_margin = simulate(3, errors=0.01 + OPTIONS.error_margin)
    assert at_margin.count("rollback") <= 0.05 * RUNS
    assert at_margin.count("promote") <= 0.05 * RUNS


def test_what_is_worse_than_a_margin_is_found_and_hardly_ever_promoted() -> None:
    for seed, worse in enumerate(({"errors": 0.05}, {"slow": 0.12}, {"misses": 0.15})):
        found = simulate(10 + seed, 60, **worse)
        assert found.count("promote") <= 0.05 * 60
        assert found.count("rollback") >= 0.9 * 60
