from __future__ import annotations

from typing import Any

import pytest

from modelyard.measure.measurement import Measurement, Verdict
from modelyard.measure.requirement import Requirement
from modelyard.release.gate import GATE, gate

ACCURACY = Requirement("accuracy", 0.9, "at_least")
LATENCY = Requirement("latency_p99", 0.01, "at_most")
GOOD = [ACCURACY.judge(Measurement("accuracy", 0.95)), LATENCY.judge(Measurement("latency_p99", 0.005))]
EQUAL = Verdict("non_inferior.accuracy", True, "no worse")


def accuracies(*values: float) -> list[Measurement]:
    return [Measurement("accuracy", value) for value in values]


def judged(**changes: Any) -> Verdict:
    facts: dict[str, Any] = {
        "required": [ACCURACY, LATENCY],
        "verdicts": GOOD,
        "champion": EQUAL,
        "first": False,
        "quality": Measurement("accuracy", 0.95),
        "history": accuracies(0.95, 0.951),
        "slide_margin": 0.01,
        "better": "higher",
    }
    required, verdicts = (changes.pop(name, facts.pop(name)) for name in ("required", "verdicts"))
    return gate(required, verdicts, **{**{k: v for k, v in facts.items() if k not in changes}, **changes})


def test_all_is_well() -> None:
    verdict = judged()
    assert verdict.passed
    assert verdict.claim == GATE == "infra.4"
    assert verdict.why.startswith("2 of 2 requirements hold; as good as the champion; no slow slide")
    assert Verdict.from_json(verdict.to_json()) == verdict


def test_a_failed_requirement_closes_it() -> None:
    verdict = judged(verdicts=[ACCURACY.judge(Measurement("accuracy", 0.8)), GOOD[1]])
    assert not verdict.passed
    assert "requirement.accuracy: the measured value 0.8 is not at least 0.9" in verdict.why


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"verdicts": GOOD[:1]}, "requirement.latency_p99 was not measured"),
        ({"verdicts": []}, "was not measured"),
        ({"required": [], "verdicts": []}, "requires nothing"),
        ({"champion": None}, "comparison with the champion is missing"),
        ({"quality": None}, "quality was not measured"),
        ({"quality": Measurement("accuracy", float("nan"))}, "quality was not measured"),
        ({"history": [Measurement("f1_macro", 0.9)]}, "another metric"),
        (
            {"verdicts": [*GOOD, Verdict("requirement.x", True, "", (Measurement("x", float("nan")),))]},
            "requirement.x",
        ),
        ({"verdicts": [*GOOD, Verdict("slice.x", False, "worse")]}, "slice.x: worse"),
        (
            {"champion": Verdict("c", False, "worse by 3")},
            "not shown to be as good as the champion: worse by 3",
        ),
        ({"champion": Verdict("c", True, "", (Measurement("d", float("nan")),))}, "not shown"),
    ],
)
def test_what_is_missing_fails(changes: dict[str, Any], why: str) -> None:
    verdict = judged(**changes)
    assert not verdict.passed
    assert why in verdict.why


def test_the_first_release_has_no_champion() -> None:
    assert judged(champion=None, first=True, history=[]).passed
    assert not judged(champion=Verdict("c", False, "worse"), first=True).passed


def test_small_accepted_losses_do_not_add_up() -> None:
    """Each release is within 0.5 points of the one before; together they lost 2."""
    history = accuracies(0.970, 0.966, 0.962, 0.958)
    verdict = judged(quality=Measurement("accuracy", 0.954), history=history)
    assert not verdict.passed
    assert "a slow slide: accuracy 0.954 against 0.97, the best of the last 4" in verdict.why
    assert judged(quality=Measurement("accuracy", 0.954), history=history, slide_margin=0.016).passed


def test_only_the_last_releases_count() -> None:
    history = accuracies(0.99, 0.95, 0.95, 0.95, 0.95, 0.95)
    assert judged(history=history).passed
    assert not judged(history=history, last=6).passed


def test_where_lower_is_better() -> None:
    mae = Measurement("mae", 10.0)
    history = [Measurement("mae", 9.0), Measurement("mae", 9.5)]
    assert not judged(quality=mae, history=history, slide_margin=0.5, better="lower").passed
    assert judged(quality=mae, history=history, slide_margin=1.0, better="lower").passed
    assert judged(quality=Measurement("mae", 5.0), history=history, slide_margin=0.0, better="lower").passed


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match="slide_margin"):
        judged(slide_margin=float("nan"))
    with pytest.raises(ValueError, match="last"):
        judged(last=0)
